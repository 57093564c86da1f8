"""Every environment variable that repro reads by a name of its own."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

VARIABLES = {
    "REPRO_HOME": "folder of the store; everything in it can be rebuilt",
    "REPRO_DATA": "folder of the history of runs",
    "REPRO_SDISTS": "1: environments may build packages from source",
    "REPRO_TOOL": "what makes virtual environments: auto (default), uv or pip",
    "REPRO_SANDBOX": "level of the sandbox: auto (default), none, mounts or hermetic",
    "REPRO_MIRRORS": "where channels and images are fetched from: ADDRESS=MIRROR ...",
    "REPRO_CONDA_CHANNELS": "channels with their logins, for downloads only",
    "REPRO_CONDA_LOCK": "path of the `conda-lock` command to use",
    "REPRO_CONDA_ENGINE": "what solves conda environments: rattler (default) or conda-lock",
    "REPRO_LINK_SCRIPTS": "1: conda packages may run scripts of theirs while they are installed",
    "REPRO_UV": "path of the `uv` to use",
    "REPRO_REMOTE": "URL of a cache that machines share: https://, s3://, oci:// or file://",
    "REPRO_REMOTE_MODE": "what is done with it: both (default), read or write",
    "REPRO_REMOTE_TRUST": "whose results count: any (default), or keys, those of known signers",
    "REPRO_REMOTE_TOKEN": "bearer token for a remote cache over HTTP",
    "REPRO_REMOTE_KEY": "SSH key that signs the results that are sent",
    "REPRO_REMOTE_SIGNERS": "file of the signers whose results count, as `ssh-keygen -Y` reads it",
    "REPRO_MLFLOW_CALLS": "0: `mlflow.run` in the code of a step is left to MLflow",
    "REPRO_TRACEBACK": "1: show tracebacks of internal errors",
    "REPRO_RUN_ID": "set for every step: the id of its run",
    "REPRO_KEY": "set for every step: its step key",
    "REPRO_CALLS": "set for every step: where its code can ask for runs of other steps",
    "REPRO_CALLS_TOKEN": "set for every step: what lets it do so",
}
PREFIXES = ("REPRO_PYTHON_", "REPRO_SECRET_")


def unknown(names: Iterable[str]) -> list[str]:
    """List the variables that look like ours and are not."""
    return [
        name
        for name in names
        if name.startswith("REPRO_") and name not in VARIABLES and not name.startswith(PREFIXES)
    ]
