"""Profiles: what the reviewers of an artifact ask, and which rules answer it."""

from __future__ import annotations

from repro.audit.findings import Answer
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.audit.findings import Accepted, Finding


class Question(Value):
    """One line of a checklist, answered by the rules `codes`."""

    group: str
    text: str
    codes: tuple[str, ...]


class Profile(Value):
    """Which rules count for whom. `levels` is by code or by letter; others become `info`."""

    name: str
    title: str
    levels: Mapping[str, str]
    questions: tuple[Question, ...]

    def level(self, code: str) -> str:
        """Give the level that a rule has here."""
        return self.levels.get(code) or self.levels.get(code[0]) or "info"


LOCKED = ("L01", "L02", "L03", "L04", "D01", "D02", "D04", "D05", "D06", "D07")
BOUND = ("H01", "H03", "H06", "K01", "P04")
ELSEWHERE = ("M01", "M02", "M03", "E01", "E03", "E04", "E05", "N01", "N04")
SECRETS = {"S01": "error", "S03": "error", "U01": "error"}
SOUND = {
    **dict.fromkeys((*LOCKED, *BOUND, "E01", "E04", "E05", "K02", "K05", "R02"), "error"),
    **dict.fromkeys(("D03", "D08", "H02", "H04", "E03", "N01", "N04", "N05", "Z"), "warning"),
    **dict.fromkeys(("I", "T"), "error"),
    **SECRETS,
}

ACM = Profile(
    name="acm",
    title="ACM artifact review and badging 1.1",
    levels={
        **SOUND,
        **dict.fromkeys(("B01", "B02", "B03", "B04", "M01", "M02", "R01", "R06"), "error"),
        **dict.fromkeys(("B09", "M03", "R04", "R05"), "warning"),
    },
    questions=(
        Question(group="Available", text="May others use it: is there a licence?", codes=("B01",)),
        Question(
            group="Available",
            text="Does it say which paper it belongs to, and how to cite it?",
            codes=("B04",),
        ),
        Question(group="Available", text="Does its exact state have a name?", codes=("R04", "R05")),
        Question(group="Functional", text="Is it documented?", codes=("B02", "B03")),
        Question(
            group="Functional", text="Are all dependencies given, to the version?", codes=LOCKED
        ),
        Question(group="Functional", text="Is what is installed named by content?", codes=BOUND),
        Question(group="Functional", text="Does it run on another machine?", codes=ELSEWHERE),
        Question(group="Functional", text="Did every step run to its end?", codes=("R06",)),
        Question(group="Functional", text="Is the cost of a run said?", codes=("B09",)),
        Question(
            group="Functional", text="Is it free of secrets?", codes=("S01", "S02", "S03", "U01")
        ),
        Question(
            group="Reproduced",
            text="Were the results made a second time, with the same outcome?",
            codes=("R01", "R02", "R06"),
        ),
    ),
)
NEURIPS = Profile(
    name="neurips",
    title="NeurIPS reproducibility checklist and ML code completeness",
    levels={
        **SOUND,
        **dict.fromkeys(("B02", "B03", "B05", "B06"), "error"),
        **dict.fromkeys(
            (
                *("B01", "B04", "B07", "B09", "M01", "M02", "M03"),
                *("R01", "R03", "R04", "R05", "R06"),
            ),
            "warning",
        ),
    },
    questions=(
        Question(group="Code", text="Are the dependencies specified?", codes=(*LOCKED, *BOUND)),
        Question(group="Code", text="Is there training code?", codes=("B05",)),
        Question(group="Code", text="Is there evaluation code?", codes=("B06",)),
        Question(group="Code", text="Are trained models offered?", codes=("B08",)),
        Question(
            group="Code",
            text="Does the README give the commands and a table of results?",
            codes=("B02", "B03", "B07"),
        ),
        Question(group="Code", text="Does it run on another machine?", codes=ELSEWHERE),
        Question(group="Data", text="Is remote data fixed by its content?", codes=("N04",)),
        Question(group="Experiments", text="Are the random seeds parameters?", codes=("R03",)),
        Question(group="Experiments", text="Is the compute that it takes said?", codes=("B09",)),
        Question(
            group="Experiments",
            text="Were the results made a second time, with the same outcome?",
            codes=("R01", "R02", "R06"),
        ),
        Question(group="Assets", text="Is it licensed?", codes=("B01",)),
        Question(
            group="Assets", text="Are the licences of what it uses known?", codes=("C01", "C02")
        ),
    ),
)
PROFILES = {profile.name: profile for profile in (ACM, NEURIPS)}


def checklist(
    profile: Profile,
    findings: tuple[Finding, ...],
    accepted: tuple[Accepted, ...],
    looked: frozenset[str],
) -> tuple[Answer, ...]:
    """Answer the questions of a profile; `looked` are the rules that had facts to look at."""
    return tuple(_answer(question, findings, accepted, looked) for question in profile.questions)


def _answer(
    question: Question,
    findings: tuple[Finding, ...],
    accepted: tuple[Accepted, ...],
    looked: frozenset[str],
) -> Answer:
    found = [one for one in findings if one.code in question.codes]
    excused = [one for one in accepted if one.finding.code in question.codes]
    blind = [code for code in question.codes if code not in looked]
    answer, because = "yes", ""
    if found:
        only = len(question.codes) == 1 or any(one.level == "error" for one in found)
        answer = "no" if only else "partly"
        because = _said(found)
    elif excused:
        answer, because = "partly", f"accepted: {excused[0].reason}"
    elif blind:
        answer, because = "unknown", f"not looked at: {', '.join(blind)}"
    return Answer(
        group=question.group,
        question=question.text,
        answer=answer,
        because=because,
        codes=question.codes,
    )


def _said(found: list[Finding]) -> str:
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{found[0].message}{more}"
