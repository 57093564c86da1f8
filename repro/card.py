"""A run as a small table for notebooks."""

from __future__ import annotations

from html import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.api import SubmittedRun

COLOURS = {"FINISHED": "#1a7f37", "FAILED": "#cf222e", "KILLED": "#9a6700", "RUNNING": "#0969da"}


def html(run: SubmittedRun) -> str:
    """Give one self-contained HTML table: status, why, parameters, metrics, outputs."""
    status = run.get_status()
    rows = [
        ("run", f"<code>{run.run_id}</code>"),
        ("key", f"<code>{run.key[:12]}</code>"),
        ("why", escape(run.why)),
        ("parameters", _pairs(run.parameters)),
        ("metrics", _pairs({k: f"{v:.6g}" for k, v in run.metrics.items()})),
        ("outputs", _pairs({o.path: f"{o.size:,} bytes" for o in run.outputs.values()})),
    ]
    body = "".join(
        f'<tr><td style="text-align:left"><b>{name}</b></td>'
        f'<td style="text-align:left">{text}</td></tr>'
        for name, text in rows
        if text
    )
    colour = COLOURS.get(status, "#57606a")
    word = f"{status} (reused)" if run.cached else status
    return (
        f'<table><caption style="text-align:left"><b>{escape(run.name)}</b> '
        f'<span style="color:{colour}">{word}</span></caption>{body}</table>'
    )


def _pairs(values: dict[str, str]) -> str:
    return "<br>".join(f"{escape(name)} = {escape(text)}" for name, text in values.items())
