"""An MLproject and the environment files it names, decoded once into a `Project`.

Grammar and selection rules are MLflow's; the extensions are described in
`schemas/mlproject.schema.json`, against which every file is checked first.
"""

from __future__ import annotations

from repro import extensions, params, quantity, requirements, schemaerror, shelllint
from repro.decode import Document, nearest
from repro.errors import Problem, ProjectInvalid, Where
from repro.spec import (
    CondaEnvironment,
    DockerEnvironment,
    EntryPoint,
    OtherEnvironment,
    Parameter,
    Project,
    PythonEnvironment,
    SparkJob,
)
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from repro.decode import Node
    from repro.spec import Environment, Need

    Reader = Callable[[str], bytes | None]

NAME = "mlproject"
ENVIRONMENT_KEYS = ("conda_env", "python_env", "docker_env", "uv_env", "renv_env")
MLFLOW_ENVIRONMENT_KEYS = ENVIRONMENT_KEYS[:3]
DOCUMENTED_TYPES = ("string", "float", "path", "uri")
CHECKED_TYPES = ("int", "integer", "number", "double", "bool", "boolean")


class Decoded(Value):
    """A project with everything that was noticed in its text, mistakes first."""

    project: Project
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Give the problems that keep the project from running."""
        return tuple(p for p in self.problems if p.level == "error")


def file_of(names: Iterable[str]) -> str:
    """Give the name of the MLproject file among the names of a folder, or an empty text.

    As MLflow: any case, no extension. `MLproject.yaml` and `.yml`, which MLflow overlooks, are
    taken when there is nothing else.
    """
    by_rank = sorted(
        (("", ".yaml", ".yml").index(name.lower()[len(NAME) :]), name)
        for name in names
        if name.lower() in (NAME, f"{NAME}.yaml", f"{NAME}.yml")
    )
    return by_rank[0][1] if by_rank else ""


def decode(name: str, read: Reader, schema: dict[str, Any]) -> Decoded:
    """Decode the project whose MLproject file is `name`, or the one without a file for "".

    `read` gives the bytes of a file by its path relative to the project, None where there is no
    regular file. Raises ProjectInvalid only for text that cannot be read at all; everything else
    is in the result.
    """
    if not name:
        return _Decoder(Document("", b""), read).without_file()
    document = Document(name, read(name) or b"")
    root = document.root()
    decoder = _Decoder(document, read)
    if root.kind != "mapping":
        hint = "is this really an MLflow project? its file begins with `name:` or `entry_points:`"
        message = f"`{name}` is not a mapping but a {schemaerror.kind(root.plain())}"
        document.fail("not-a-project", message, document.where(root), hint)
    decoder.against_schema(root, schema)
    decoder.unknown_keys(root, schema)
    if any(p.level == "error" for p in decoder.problems):
        return Decoded(project=Project(file=name), problems=decoder.sorted())
    return decoder.decode(root)


class _Decoder:
    """Collects problems while it turns nodes into values."""

    def __init__(self, document: Document, read: Reader) -> None:
        self.document = document
        self.read = read
        self.problems: list[Problem] = []

    # -- problems

    def add(
        self, code: str, message: str, node: Node | None, hint: str = "", level: str = "error"
    ) -> None:
        where = self.document.where(node) if node else Where(file=self.document.file)
        self.problems.append(
            Problem(code=code, message=message, where=where, hint=hint, level=level)
        )

    def sorted(self) -> tuple[Problem, ...]:
        levels = ("error", "warning", "info")
        return tuple(
            sorted(
                dict.fromkeys(self.problems),
                key=lambda p: (levels.index(p.level), p.where.line if p.where else 0),
            )
        )

    def against_schema(self, root: Node, schema: dict[str, Any]) -> None:
        """Report everything in which the data differs from the JSON Schema."""
        import jsonschema

        plain = _without_dates(root.plain())
        for error in jsonschema.Draft202012Validator(schema).iter_errors(plain):
            self._schema_error(error, root)

    def _schema_error(self, error: Any, root: Node) -> None:
        path = list(error.absolute_path)
        node = root.at(path)
        where = ".".join(str(step) for step in path)
        message = schemaerror.message(error)
        hint = error.schema.get("x-hint", "")
        if error.validator == "required":
            keys = [str(key.value) for key, _ in node.items()]
            near = next((k for k in keys if nearest(k, error.validator_value)), "")
            near = near if near not in error.schema.get("properties", {}) else ""
            if near:
                wanted = nearest(near, error.validator_value)
                hint = f"`{near}` stands there; a similar key exists: `{wanted}`"
        self.add("schema", f"{where}: {message}" if where else message, node, hint)

    def unknown_keys(self, root: Node, schema: dict[str, Any]) -> None:
        """Warn of keys that neither MLflow nor repro knows; MLflow ignores them in silence."""
        definitions = schema["$defs"]
        self._unknown(root, schema, "")
        for name in ("docker_env", "databricks_spark_job"):
            inner = definitions["dockerEnv"] if name == "docker_env" else schema["properties"][name]
            self._unknown(root.get(name), inner, name)
        entries = root.get("entry_points")
        for key, entry in entries.items() if entries else []:
            path = f"entry_points.{key.text}"
            if not isinstance(key.value, str):
                hint = f'put it in quotes: `"{key.text}":`'
                self.add("name", f"the entry point name `{key.text}` is not text", key, hint)
            self._unknown(entry, definitions["entryPoint"], path)
            parameters = entry.get("parameters")
            for name_key, parameter in parameters.items() if parameters else []:
                if not isinstance(name_key.value, str):
                    hint = f'put it in quotes: `"{name_key.text}":`'
                    message = f"the parameter name `{name_key.text}` is not text"
                    self.add("name", message, name_key, hint)
                known = definitions["parameter"]["anyOf"][1]
                self._unknown(parameter, known, f"{path}.parameters.{name_key.text}")

    def _unknown(self, node: Node | None, schema: dict[str, Any], path: str) -> None:
        known = list(schema.get("properties", {}))
        for key, value in node.items() if node else []:
            text = str(key.value)
            if text in known or text.startswith("x-"):
                continue
            shown = f"{path}.{text}" if path else text
            hint = _spacing_hint(text, value, known)
            near = nearest(text, known)
            if not hint and near:
                hint = f"a similar key exists: `{near}`"
            if not hint:
                hint = f"it is ignored; known keys: {', '.join(known[:6])}, …"
            self.add("unknown-key", f"unknown key `{shown}`", key, hint, "warning")

    # -- the project

    def without_file(self) -> Decoded:
        """Give the project of a folder without an MLproject file: scripts as entry points."""
        project = Project(environment=self._implicit_environment())
        return Decoded(project=project, problems=self.sorted())

    def decode(self, root: Node) -> Decoded:
        """Turn the checked document into a project."""
        name = root.get("name")
        spark = self._spark_job(root)
        environment = None if spark else self._environment(root) or self._implicit_environment()
        entries = root.get("entry_points")
        if self.document.file.lower() != NAME:
            hint = f"rename it to `MLproject`: `mlflow` does not find `{self.document.file}`"
            self.add(
                "file-name", f"`{self.document.file}` is no standard name", None, hint, "warning"
            )
        self._check_needs(extensions.pairs(entries))
        project = Project(
            name="" if name is None or name.value is None else name.text,
            file=self.document.file,
            entry_points=tuple(
                self._entry_point(key, node) for key, node in (entries.items() if entries else [])
            ),
            environment=environment,
            spark_job=spark,
            other={
                str(key.value): node.text
                for key, node in root.items()
                if str(key.value) not in ("name", "entry_points", *ENVIRONMENT_KEYS)
            },
        )
        return Decoded(project=project, problems=self.sorted())

    def _spark_job(self, root: Node) -> SparkJob | None:
        node = root.get("databricks_spark_job")
        if node is None or node.kind != "mapping":
            return None
        file, entries = node.get("python_file"), root.get("entry_points")
        if not (file and file.text) and not (entries and entries.items()):
            self.add(
                "spark-job", "databricks_spark_job: neither python_file nor entry points", node
            )
        if file and file.text and entries and entries.items():
            self.add("spark-job", "databricks_spark_job: python_file and entry points", node)
        for key in MLFLOW_ENVIRONMENT_KEYS:
            if root.get(key) is not None:
                message = f"databricks_spark_job: `{key}` has no meaning in such a project"
                self.add("spark-job", message, root.key(key))
        return SparkJob(
            python_file=file.text if file and file.value is not None else "",
            parameters=extensions.texts(node.get("parameters")),
            python_libraries=extensions.texts(node.get("python_libraries")),
        )

    # -- environments

    def _environment(self, node: Node, path: str = "") -> Environment | None:
        """Give the environment that a mapping names, by MLflow's order of selection."""
        keys = [key for key in MLFLOW_ENVIRONMENT_KEYS if node.key(key)]
        if len(keys) > 1:
            named = " and ".join(f"`{key}`" for key in keys)
            message = f"{path}: {named}" if path else named
            self.add(
                "two-environments",
                f"{message} are given together",
                node.key(keys[1]),
                "keep one of them: a project has a single environment",
            )
            return None
        for key in ("docker_env", "python_env", "conda_env", "uv_env", "renv_env"):
            value = node.get(key)
            if value is not None and (value.value or value.items() or key == "uv_env"):
                return self._of_key(key, value)
        return None

    def _of_key(self, key: str, node: Node) -> Environment | None:
        if key == "docker_env":
            return self._docker(node)
        if key == "renv_env":
            return OtherEnvironment(key=key, value=node.text)
        if key == "uv_env":
            named = node.text if node.value is not None else ""
            found, problems = requirements.uv_env(named, self.document.where(node), self.read)
            self.problems += problems
            return found
        data = self.read(node.text)
        if data is None:
            self.add(
                "environment-file",
                f"{key}: there is no file `{node.text}` in the project",
                node,
                "the path is relative to the MLproject file",
            )
            return None
        return self._file(key, node.text, data)

    def _file(self, key: str, file: str, data: bytes) -> Environment:
        if key == "conda_env":
            return CondaEnvironment(file=file, text=data.decode("utf-8", "replace"))
        try:
            found, problems = requirements.python_env(file, data, self.read)
        except ProjectInvalid as error:
            found, problems = PythonEnvironment(source=file), [*error.problems]
        self.problems += problems
        return found

    def _implicit_environment(self) -> Environment:
        """Look for the two files that MLflow takes without being told; else an empty one."""
        for file, key in (("python_env.yaml", "python_env"), ("conda.yaml", "conda_env")):
            data = self.read(file)
            if data is not None:
                return self._file(key, file, data)
        return PythonEnvironment()

    def _docker(self, node: Node) -> DockerEnvironment:
        image, dockerfile = node.get("image"), node.get("dockerfile")
        if not (image and image.text) and not (dockerfile and dockerfile.text):
            hint = "add `image: NAME`, or `dockerfile: FILE` to build one"
            self.add("docker-image", "docker_env: no `image`", node, hint)
        pairs = node.get("environment")
        return DockerEnvironment(
            image=image.text if image and image.value is not None else "",
            dockerfile=dockerfile.text if dockerfile and dockerfile.value is not None else "",
            volumes=extensions.texts(node.get("volumes")),
            environment=tuple(
                (item.text, None)
                if item.kind == "scalar"
                else (str(item.value[0].value), str(item.value[1].value))
                for item in (pairs.value if pairs and pairs.kind == "sequence" else [])
            ),
        )

    # -- entry points

    def _entry_point(self, key: Node, node: Node) -> EntryPoint:
        name = str(key.value)
        path = f"entry_points.{name}"
        parameters = node.get("parameters")
        command = node.get("command")
        assert command is not None  # noqa: S101  (the schema requires it)
        declared = tuple(
            self._parameter(k, n, path) for k, n in (parameters.items() if parameters else [])
        )
        needs = tuple(extensions.need(item) for item in extensions.items(node.get("needs")))
        self._check_command(path, command, declared, needs)
        self._check_globs(path, node)
        timeout = node.get("timeout")
        retries = node.get("retries")
        return EntryPoint(
            name=name,
            command=command.text,
            parameters=declared,
            description=extensions.text(node.get("description")),
            inputs=extensions.globs(node.get("inputs")),
            outputs=extensions.globs(node.get("outputs")),
            needs=needs,
            metrics=extensions.texts(node.get("metrics")),
            env=extensions.mapping(node.get("env")),
            pass_env=extensions.texts(node.get("pass_env")),
            secrets=extensions.texts(node.get("secrets")),
            network=extensions.flag(node.get("network"), default=True),
            mounts=tuple(extensions.mount(item) for item in extensions.items(node.get("mounts"))),
            sandbox=extensions.text(node.get("sandbox")),
            shell=extensions.text(node.get("shell")),
            cache=extensions.flag(node.get("cache"), default=True),
            timeout_ms=quantity.milliseconds(timeout.value) if timeout else 0,
            retries=retries.value if retries else 0,
            resources=extensions.resources(node.get("resources")),
            compare=extensions.compares(node.get("compare")),
            environment=self._environment(node, path),
            backend=extensions.text(node.get("backend")),
            line=key.line,
            command_line=command.line,
        )

    def _parameter(self, key: Node, node: Node, path: str) -> Parameter:
        name = str(key.value)
        where = f"{path}.parameters.{name}"
        if node.kind == "scalar":
            self._check_type(where, node.text, node)
            return Parameter(name=name, type=node.text, line=key.line)
        default, kind = node.get("default"), node.get("type")
        optional, flag = node.get("optional"), node.get("flag")
        word = kind.text if kind else "string"
        if kind:
            self._check_type(where, word, kind)
        opted = bool((optional and optional.value) or (flag and flag.value))
        if default is not None and default.plain() is None and not opted:
            self.add(
                "null-default",
                f"{where}: `default: null` means that the parameter is required, as in MLflow",
                node.key("default"),
                "say `optional: true` if it may be left out, or remove the default",
                "warning",
            )
        if default is not None and default.kind == "sequence":
            message = f"{where}: a list reaches the command as Python writes it: {default.plain()}"
            self.add(
                "list-default", message, default, "write the text that the command takes", "warning"
            )
        if default is not None and default.value == "None" and default.kind == "scalar":
            message = f"{where}: the text `None` reaches the command"
            self.add("none-default", message, default, "say `optional: true` instead", "info")
        return Parameter(
            name=name,
            type=word,
            default=None if default is None or default.plain() is None else str(default.plain()),
            description=extensions.text(node.get("description")),
            choices=tuple(str(item.value) for item in extensions.items(node.get("choices"))),
            minimum=extensions.text(node.get("minimum")),
            maximum=extensions.text(node.get("maximum")),
            optional=bool(optional and optional.value),
            flag=bool(flag and flag.value),
            secret=extensions.flag(node.get("secret"), default=False),
            line=key.line,
        )

    def _check_type(self, where: str, word: str, node: Node) -> None:
        if word in DOCUMENTED_TYPES or word in CHECKED_TYPES:
            return
        near = nearest(word, (*DOCUMENTED_TYPES, *CHECKED_TYPES))
        hint = f"a similar type exists: `{near}`" if near else "its values are not checked"
        self.add("type", f"{where}: no type is called `{word}`", node, hint, "info")

    def _check_globs(self, path: str, node: Node) -> None:
        hints = {
            "inputs": "name it under `mounts:`, or pass it as a parameter of type `path`",
            "outputs": "what a step writes outside of its folder is not kept: write it here",
        }
        for key, hint in hints.items():
            for item in extensions.items(node.get(key)):
                if extensions.leaves(item.text):
                    message = f"{path}.{key}: `{item.text}` lies outside of the project"
                    self.add("outside", message, item, hint)

    def _check_needs(self, entries: list[tuple[Node, Node]]) -> None:
        names = sorted(str(key.value) for key, _node in entries)
        for key, node in entries:
            for item in extensions.items(node.get("needs")):
                step = extensions.need(item).step
                if step not in names:
                    near = nearest(step, names)
                    hint = (
                        f"a similar one exists: `{near}`"
                        if near
                        else f"it is none of: {', '.join(names)}"
                    )
                    message = f"entry_points.{key.value}.needs: no entry point is called `{step}`"
                    self.add("needs", message, item, hint)

    # -- commands

    def _check_command(
        self, path: str, command: Node, declared: tuple[Parameter, ...], needs: tuple[Need, ...]
    ) -> None:
        template = params.parse(command.text)
        for offset, message, hint in template.problems:
            self._at_offset(f"{path}.command: {message}", command, offset, hint)
        names = {p.name for p in declared}
        for name in dict.fromkeys(template.names):
            if name not in names:
                offset = command.text.find("{" + name + "}")
                near = nearest(name, sorted(names))
                hint = f"declare it below `parameters:`: `{name}: string`"
                hint = f"a similar parameter exists: `{near}`" if near else hint
                self._at_offset(f"{path}.command: no parameter `{name}`", command, offset, hint)
        passed_on = " ".join(text for need in needs for text in need.parameters.values())
        used = set(template.names)
        for parameter in declared:
            is_used = parameter.name in used or f"{{{parameter.name}}}" in passed_on
            if not is_used and not parameter.flag:
                message = f"{path}.parameters.{parameter.name}: the command does not use it"
                where = Where(file=self.document.file, line=parameter.line)
                self.problems.append(
                    Problem(
                        code="unused-parameter",
                        message=message,
                        where=where,
                        hint=f"write `{{{parameter.name}}}` in the command, or remove it",
                        level="warning",
                    )
                )
        for code, message, hint in shelllint.lints(command.text):
            self.add(code, f"{path}.command: {message}", command, hint, "warning")

    def _at_offset(self, message: str, command: Node, offset: int, hint: str) -> None:
        where = self.document.where(command)
        at = where.text.find(
            command.text[max(offset, 0) :].split("\n", 1)[0].split(" ", 1)[0] or "\n"
        )
        if at >= 0:
            where = self.document.where(line=command.line, column=at + 1)
        self.problems.append(Problem(code="placeholder", message=message, where=where, hint=hint))


def _without_dates(value: Any) -> Any:
    """Write dates, which YAML has and JSON has not, as the text that a command would get."""
    if isinstance(value, dict):
        return {str(key): _without_dates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_dates(item) for item in value]
    plain = value is None or isinstance(value, (str, bool, int, float))
    return value if plain else str(value)


def _spacing_hint(text: str, value: Node, known: list[str]) -> str:
    """Recognise `{type:float}` and `{default "x"}`, where one blank or colon is missing."""
    if value.kind != "scalar" or value.value is not None:
        return ""
    for word in known:
        if text.startswith(f"{word}:"):
            return f"a blank is missing after the colon: `{word}: {text[len(word) + 1 :].strip()}`"
        if text.startswith(f"{word} "):
            return f"a colon is missing: `{word}: {text[len(word) + 1 :].strip()}`"
    return ""
