class Folder:
    """Carriage through a folder that both sides see. Files are opened anew for each look.

    That is what makes a network file system show what the other side wrote.
    """

    def __init__(self, path: str) -> None:
        """Name the folder of the job."""
        self.path = path
        self._size = 0
        self._fd = -1

    def claim(self) -> int:
        """Begin an attempt; give its number."""
        for attempt in range(1 << 16):
            try:
                os.mkdir(self._place(f"{attempt}.taken"))
            except FileExistsError:
                continue
            return attempt
        raise Failed("it was started too often")

    def is_taken(self, attempt: int) -> bool:
        """Say whether an attempt has begun."""
        return os.path.isdir(self._place(f"{attempt}.taken"))

    def append(self, attempt: int, data: bytes) -> None:
        """Add to the stream, over what an append that failed has left."""
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self._place(f"{attempt}.frames"), flags, 0o600)
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], self._size + done)
        self._size += len(data)

    def flush(self) -> None:
        """See to it that the other side can read what was added."""
        if self._fd >= 0:
            os.fsync(self._fd)

    def read(self, attempt: int, position: int) -> bytes:
        """Read the stream from a position on, as far as it goes or as much as is handy."""
        try:
            with open(self._place(f"{attempt}.frames"), "rb", buffering=0) as file:
                file.seek(position)
                return file.read(READ) or b""
        except FileNotFoundError:
            return b""

    @staticmethod
    def after(position: int, used: int) -> int:
        """Give the position behind what was used."""
        return position + used

    def get(self, digest: str, target: str) -> None:
        """Write a blob to a new file. Raises Failed where it is not there, or damaged."""
        try:
            with open(self._place("blobs", digest), "rb") as source:
                _take(digest, source.read, target)
        except FileNotFoundError:
            raise Failed(f"`{digest}` is not in the shared folder") from None

    def put(self, digest: str, source: str) -> None:
        """Store a file as a blob, whole or not at all."""
        place = self._place("blobs", digest)
        if not os.path.exists(place):
            half = "%s.%s~" % (place, os.urandom(6).hex())
            shutil.copyfile(source, half)
            os.replace(half, place)

    def _place(self, *names: str) -> str:
        return os.path.join(self.path, *names)


class Http:
    """Carriage through a web server that takes GET and PUT below `/cas/` and `/ac/`.

    What is told goes to names that only those who have `token` can find, and is sealed with it.
    """

    def __init__(self, url: str, token: str, headers: Mapping[str, str]) -> None:
        """Name the server; `headers` go with every request."""
        self.url, self.token, self.headers = url, token, dict(headers)
        self._opener = urllib.request.build_opener(_Stay)
        self._part, self._held = 0, b""

    def claim(self) -> int:
        """Begin an attempt; give its number."""
        attempt = 0
        while self.is_taken(attempt):
            attempt += 1
        self._tell(f"{attempt}.taken", b"")
        return attempt

    def is_taken(self, attempt: int) -> bool:
        """Say whether an attempt has begun."""
        return self._told(f"{attempt}.taken") is not None

    def append(self, attempt: int, data: bytes) -> None:
        """Add to the stream; what is small is held back until `flush`."""
        if len(self._held) >= PART:
            self.flush()
        self._attempt = attempt
        self._held += data

    def flush(self) -> None:
        """Send what was held back, as the next part of the stream."""
        if self._held:
            self._tell(f"{self._attempt}.frames.{self._part}", self._held)
            self._part, self._held = self._part + 1, b""

    def read(self, attempt: int, position: int) -> bytes:
        """Read the part of the stream at a position, nothing if it is not there yet."""
        return self._told(f"{attempt}.frames.{position}") or b""

    @staticmethod
    def after(position: int, used: int) -> int:
        """Give the position behind what was used, which is a whole part or nothing."""
        return position + bool(used)

    def get(self, digest: str, target: str) -> None:
        """Write a blob to a new file. Raises Failed where it is not there, or damaged."""
        with self._call("GET", "cas/" + digest) as answer:
            if answer.status != http.client.OK:
                raise Failed(f"`{digest}` is not in the cache")
            _take(digest, answer.read, target)

    def put(self, digest: str, source: str) -> None:
        """Store a file as a blob."""
        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._call("PUT", "cas/" + digest, file if size else b"", size).close()

    def _tell(self, name: str, data: bytes) -> None:
        sealed = self._seal(name, data) + data
        self._call("PUT", self._hidden(name), sealed, len(sealed)).close()

    def _told(self, name: str) -> bytes | None:
        with self._call("GET", self._hidden(name)) as answer:
            sealed = answer.read() if answer.status == http.client.OK else b""
        seal, data = sealed[:64], sealed[64:]
        return data if hmac.compare_digest(seal, self._seal(name, data)) else None

    def _seal(self, name: str, data: bytes) -> bytes:
        text = name.encode() + b"\0" + data
        return hmac.new(self.token.encode(), text, "sha256").hexdigest().encode()

    def _hidden(self, name: str) -> str:
        return "ac/" + hashlib.sha256((f"{self.token}/{name}").encode()).hexdigest()

    def _call(self, method: str, path: str, body: Any = None, size: int = 0) -> Any:
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Length"] = str(size)
            headers["Content-Type"] = "application/octet-stream"
        url = f"{self.url}/{path}"
        asked = urllib.request.Request(url, body, headers, method=method)  # noqa: S310  (by config)
        try:
            return self._opener.open(asked, timeout=60)
        except urllib.error.HTTPError as error:
            if method == "GET" and error.code in (404, 410):
                return error
            error.close()
            reason = f"the server answers {error.code} to {method}"
            if error.code in (408, 425, 429) or error.code >= http.client.INTERNAL_SERVER_ERROR:
                raise OSError(reason) from None
            raise Failed(reason) from None
        except http.client.HTTPException as error:
            raise OSError(str(error) or type(error).__name__) from None


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: our headers may hold credentials."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


def connect(carriage: Mapping[str, Any]) -> Folder | Http:
    """Give the carriage that a specification names."""
    if carriage["kind"] == "folder":
        return Folder(carriage["path"])
    return Http(carriage["url"], carriage["token"], carriage["headers"])


def patiently(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call what may fail for a while. Raises Failed when that was too long."""
    end, pause = time.monotonic() + PATIENCE, PAUSE
    while True:
        try:
            return call(*arguments)
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() + pause > end:
                raise Failed(str(error) or type(error).__name__) from error
        time.sleep(pause)
        pause = min(pause * 2, 10.0)


def _take(digest: str, read: Callable[[int], bytes], target: str) -> None:
    hasher = hashlib.sha256()
    with open(target, "wb") as file:
        while True:
            piece = read(CHUNK)
            if not piece:
                break
            hasher.update(piece)
            file.write(piece)
    if hasher.hexdigest() != digest:
        os.unlink(target)
        raise Failed(f"the bytes of `{digest}` are not those that its name promises")
