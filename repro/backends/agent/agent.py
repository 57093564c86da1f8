class Agent:
    """One attempt at a job."""

    def __init__(self, spec: Mapping[str, Any], bell: Bell) -> None:
        """Take a specification that was read."""
        self.spec, self.bell = spec, bell
        self.carriage = connect(spec["carriage"])
        self.record = Record(self.carriage)
        self.known: dict[str, tuple[Any, Entry]] = {}
        self.facts: dict[str, Any] = {"code": NOT_EXECUTABLE, "cause": "exit", "failed": ""}

    def run(self) -> int:
        """Do it all; give the exit code. The end is told last, after all that it names."""
        over = threading.Event()
        beating = (over, float(self.spec["beat_s"]))
        heart = threading.Thread(target=self.record.beat, args=beating, daemon=True)
        heart.start()
        room = ""
        try:
            room = tempfile.mkdtemp(prefix="repro-", dir=self._scratch())
            self._attempt(os.path.realpath(room))
        except (Failed, OSError) as error:
            self.facts["failed"] = str(error)
        finally:
            self._remove(room)
        over.set()
        heart.join()
        facts = {**self.facts, "version": VERSION, "host": socket.gethostname()}
        self.record.add(END, json.dumps(facts).encode("ascii"))
        self.record.flush()
        if self.record.lost:
            sys.stderr.write(f"repro: nothing can be told any more: {self.record.lost}\n")
            return UNTOLD
        return int(self.facts["code"])

    def _scratch(self) -> str:
        folder = self.spec["scratch"] or tempfile.gettempdir()
        os.makedirs(folder, exist_ok=True)
        return str(folder)

    def _attempt(self, room: str) -> None:
        self._begin(room)
        if self.bell.rung:
            self.facts.update(code=TERMINATED, cause="cancel")
            return
        self._check_ports()
        self._command(room)
        self.facts["tree"] = self._publish(room)

    def _begin(self, room: str) -> None:
        """Bring the inputs, every byte of them hashed."""
        tree = os.path.join(room, "~tree")
        patiently(self.carriage.get, self.spec["tree"], tree)
        with open(tree, "rb") as file:
            entries = unpacked(file.read())
        os.unlink(tree)
        lay(entries, room, lambda digest, path: patiently(self.carriage.get, digest, path))
        for entry in entries:
            if entry[1] in ("file", "exec"):
                self.known[entry[0]] = (state(os.path.join(room, entry[0])), entry)

    def _check_ports(self) -> None:
        """Say where nobody answers what variables point to."""
        for port in self.spec["ports"]:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
            except OSError:
                self.record.say(self.spec["deaf"])
                return

    def _command(self, room: str) -> None:
        spec, bell = self.spec, self.bell
        before = time.time_ns()
        argv = [self._placed(word, room) for word in spec["argv"]]
        variables = {raw(n): self._placed(v, room) for n, v in spec["variables"].items()}
        folder = os.path.join(os.fsencode(room), raw(spec["folder"]))
        try:
            command = Command(argv, variables, folder)
        except OSError as error:
            missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
            name = os.fsdecode(argv[0])
            self.record.say(f"cannot run `{name}`: {error.strerror}")
            self.facts["code"] = NOT_FOUND if missing else NOT_EXECUTABLE
            return
        pump = Pump(command.pipes, self.record)
        pump.start()
        cause = command.watch(bell, self.record, spec["timeout_ms"] / 1000)
        if command.alive():
            command.end(bell, SHORT if cause == "exit" else spec["grace_ms"] / 1000)
        pump.finish()
        self.facts.update(_usage(), code=command.code(cause), cause=cause, wall_ns=command.wall)
        self.facts.update(started_ns=before, ended_ns=time.time_ns())

    def _placed(self, text: str, room: str) -> bytes:
        """Replace the job's folder on the submitting side, where a text is or holds it."""
        data, base = raw(text), raw(self.spec["base"])
        if data == base:
            return os.fsencode(room)
        return data.replace(base + b"/", os.fsencode(room) + b"/")

    def _publish(self, room: str) -> str:
        """Send what was made or changed; of a command that failed, only what is small."""
        is_good = self.facts["code"] == 0 and self.facts["cause"] == "exit"
        left = None if is_good else SPARED
        had = {entry[2] for _, entry in self.known.values()}
        entries: list[Entry] = []
        for path, kind, content, size in scan(room, self.known):
            entry = (path, kind, content, size)
            if kind in ("file", "exec") and content not in had:
                if left is not None and size > left:
                    entry = (path, "left", "", 0)
                else:
                    left = None if left is None else left - size
                    patiently(self.carriage.put, content, os.path.join(room, path))
            entries.append(entry)
        tree = os.path.join(room, "~tree")
        with open(tree, "wb") as file:
            file.write(packed(entries))
        digest = digest_of(tree)
        patiently(self.carriage.put, digest, tree)
        return digest

    @staticmethod
    def _remove(room: str) -> None:
        def again(_call: object, path: str, _error: object) -> None:
            try:
                os.chmod(os.path.dirname(path), 0o700)
                os.chmod(path, 0o700)
                os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
            except OSError:
                pass

        if room:
            shutil.rmtree(room, onerror=again)


def _usage() -> dict[str, int]:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "user_ns": round(usage.ru_utime * 10**9),
        "system_ns": round(usage.ru_stime * 10**9),
        "peak_bytes": usage.ru_maxrss * unit,
    }


def raw(text: str) -> bytes:
    """Undo the way in which any bytes get through JSON: one character for each."""
    return text.encode("latin-1")


def main() -> int:
    """Run the job that the first argument names."""
    bell = Bell()
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    name = sys.argv[1]
    if name.startswith("env:"):
        text = os.environ.pop(name[len("env:") :])
    else:
        with open(name, encoding="ascii") as file:
            text = file.read()
    return Agent(json.loads(text), bell).run()


if __name__ == "__main__":
    sys.exit(main())
