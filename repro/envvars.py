"""Every environment variable that repro reads, by what it is about."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

GROUPS = {
    "store": {
        "REPRO_HOME": ("folder of the store; everything in it can be rebuilt", "~/.cache/repro"),
        "REPRO_DATA": ("folder of the history of runs", "~/.local/share/repro"),
        "XDG_CACHE_HOME": ("folder of caches, that of the store among them", "~/.cache"),
        "XDG_DATA_HOME": ("folder of data, that of the history among them", "~/.local/share"),
    },
    "runs": {
        "REPRO_SANDBOX": ("level of the sandbox: auto, none, mounts or hermetic", "auto"),
        "REPRO_MLFLOW_CALLS": ("0: `mlflow.run` in the code of a step is left to MLflow", "1"),
        "CI": ("set: a lock file that is out of date is an error", "unset"),
        "CUDA_VISIBLE_DEVICES": ("which GPUs steps that run at once share", "all"),
        "SHELL": ("what runs `.sh` files that are no entry points", "bash"),
        "XDG_CONFIG_HOME": ("folder of settings, those of Git among them", "~/.config"),
    },
    "other places": {
        "SLURM_CONF": ("configuration of the Slurm cluster", "that of Slurm"),
        "KUBECONFIG": ("files with clusters of Kubernetes", "~/.kube/config"),
        "KUBERNETES_SERVICE_HOST": ("set in a pod: its own cluster", "unset"),
        "DATABRICKS_HOST": ("workspace of Databricks", "that of the profile"),
        "DATABRICKS_TOKEN": ("token there", "that of the profile"),
        "DATABRICKS_USERNAME": ("login there", "that of the profile"),
        "DATABRICKS_PASSWORD": ("its password", "that of the profile"),
        "DATABRICKS_CONFIG_PROFILE": ("which profile of the file below", "DEFAULT"),
        "DATABRICKS_CONFIG_FILE": ("file of profiles", "~/.databrickscfg"),
    },
    "environments": {
        "REPRO_TOOL": ("what makes virtual environments: auto, uv or pip", "auto"),
        "REPRO_UV": ("path of the `uv` to use", "the one installed with repro, else on PATH"),
        "REPRO_SDISTS": ("1: environments may build packages from source", "0"),
        "REPRO_MIRRORS": ("where indexes, channels, images come from: ADDRESS=MIRROR ...", "none"),
        "REPRO_PYTHON_CHANNEL": ("conda channel for a Python that is not here", "none"),
        "PYENV_ROOT": ("where pyenv keeps its Pythons", "~/.pyenv"),
        "PYENV_VERSION": ("the Python that pyenv chooses", "that of its files"),
        "PYENV_DIR": ("folder that pyenv chooses for", "the current one"),
        "UV_PYTHON_INSTALL_DIR": ("where uv keeps its Pythons", "~/.local/share/uv/python"),
        "UV_DEFAULT_INDEX": ("index; a login in it serves its host", "that of uv"),
        "UV_INDEX_URL": ("the same", "that of uv"),
        "UV_INDEX": ("more indexes, with their logins", "none"),
        "UV_EXTRA_INDEX_URL": ("the same", "none"),
        "UV_FIND_LINKS": ("pages with links to packages", "none"),
        "PIP_INDEX_URL": ("index for pip; a login in it serves its host", "that of pip"),
        "PIP_EXTRA_INDEX_URL": ("more indexes for pip", "none"),
        "PIP_FIND_LINKS": ("pages with links to packages", "none"),
        "UV_HTTP_RETRIES": ("how often a download is tried again", "3"),
        "REQUESTS_CA_BUNDLE": ("file of certificates to trust", "those of the system"),
        "SSL_CERT_FILE": ("the same", "those of the system"),
        "PIP_CERT": ("the same", "those of the system"),
        "NETRC": ("file with logins by host", "~/.netrc"),
    },
    "conda": {
        "REPRO_CONDA_ENGINE": ("what solves environments: rattler or conda-lock", "rattler"),
        "REPRO_CONDA_LOCK": ("path of the `conda-lock` command to use", "the one on PATH"),
        "REPRO_CONDA_CHANNELS": ("channels with their logins, for downloads only", "none"),
        "REPRO_LINK_SCRIPTS": ("1: packages may run scripts while they are installed", "0"),
        "CONDA_CHANNEL_ALIAS": (
            "where channels are that have a name",
            "https://conda.anaconda.org",
        ),
        "CONDA_OVERRIDE_GLIBC": ("version of glibc to solve for", "2.28"),
        "CONDA_OVERRIDE_LINUX": ("version of Linux to solve for", "5.10"),
        "CONDA_OVERRIDE_OSX": ("version of macOS to solve for", "11.0"),
        "CONDA_OVERRIDE_CUDA": ("version of CUDA to solve for", "none"),
        "RATTLER_AUTH_FILE": ("logins of channels", "~/.rattler/credentials.json"),
    },
    "containers": {
        "REPRO_BASE_IMAGE": ("image that environments are put on", "debian:12-slim"),
        "DOCKER_HOST": ("the container engine", "unix:///var/run/docker.sock"),
        "DOCKER_CONFIG": ("folder of docker's configuration and logins", "~/.docker"),
        "CONTAINERS_REGISTRIES_CONF": ("what names of images mean to buildah", "as to docker"),
    },
    "remote cache": {
        "REPRO_REMOTE": ("URL of a cache that machines share: https, s3, oci or file", "none"),
        "REPRO_REMOTE_MODE": ("what is done with it: both, read or write", "both"),
        "REPRO_REMOTE_TRUST": ("whose results count: any, or keys, those of known signers", "any"),
        "REPRO_REMOTE_TOKEN": ("bearer token for a remote cache over HTTP", "none"),
        "REPRO_REMOTE_KEY": ("SSH key that signs the results that are sent", "none"),
        "REPRO_REMOTE_SIGNERS": ("signers whose results count, as for `ssh-keygen -Y`", "none"),
        "SSH_AUTH_SOCK": ("agent that has the SSH key", "none"),
        "AWS_ACCESS_KEY_ID": ("key for s3", "that of the profile"),
        "AWS_SECRET_ACCESS_KEY": ("its secret", "that of the profile"),
        "AWS_SESSION_TOKEN": ("its token", "none"),
        "AWS_REGION": ("region for s3", "that of the profile, else us-east-1"),
        "AWS_DEFAULT_REGION": ("the same", "that of the profile, else us-east-1"),
        "AWS_PROFILE": ("which profile of the files below", "default"),
        "AWS_SHARED_CREDENTIALS_FILE": ("file of keys", "~/.aws/credentials"),
        "AWS_CONFIG_FILE": ("file of regions", "~/.aws/config"),
    },
    "tracking server": {
        "MLFLOW_TRACKING_URI": ("`http` or `https` server that shows the runs", "none"),
        "MLFLOW_EXPERIMENT_NAME": ("experiment there", "none"),
        "MLFLOW_EXPERIMENT_ID": ("the same by its id", "0"),
        "MLFLOW_TRACKING_USERNAME": ("login there", "that of ~/.mlflow/credentials"),
        "MLFLOW_TRACKING_PASSWORD": ("its password", "that of ~/.mlflow/credentials"),
        "MLFLOW_TRACKING_TOKEN": ("bearer token there", "none"),
        "MLFLOW_TRACKING_INSECURE_TLS": ("true: trust any certificate", "false"),
        "MLFLOW_TRACKING_SERVER_CERT_PATH": ("certificates to trust", "those of the system"),
        "MLFLOW_TRACKING_CLIENT_CERT_PATH": ("our certificate", "none"),
    },
    "output": {
        "REPRO_TRACEBACK": ("1: show tracebacks of internal errors", "0"),
        "NO_COLOR": ("set: no colour", "unset"),
        "FORCE_COLOR": ("set: colour even where there is no terminal", "unset"),
        "CLICOLOR_FORCE": ("the same", "unset"),
        "TERM": ("dumb: no colour", "unset"),
    },
    "set for every step": {
        "REPRO_RUN_ID": ("the id of its run", "unset"),
        "REPRO_KEY": ("its step key", "unset"),
        "REPRO_CALLS": ("where its code can ask for runs of other steps", "unset"),
        "REPRO_CALLS_TOKEN": ("what lets it do so", "unset"),
    },
}
"""Variables by subject: what each means, and what counts where it is not set."""
VARIABLES = {
    name: about[0]
    for group in GROUPS.values()
    for name, about in group.items()
    if name.startswith("REPRO_")
}
"""Those of our own, with what they mean."""
PREFIXES = ("REPRO_PYTHON_", "REPRO_SECRET_")
SECRETS = (
    *("REPRO_REMOTE_TOKEN", "REPRO_CALLS_TOKEN"),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("DATABRICKS_TOKEN", "DATABRICKS_PASSWORD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)
"""Variables whose values are never shown; others may be URLs with logins in them."""


def unknown(names: Iterable[str]) -> list[str]:
    """List the variables that look like ours and are not."""
    return [
        name
        for name in names
        if name.startswith("REPRO_") and name not in VARIABLES and not name.startswith(PREFIXES)
    ]
