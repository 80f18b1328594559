"""A small stand-in for the Hub on 127.0.0.1, for tests that drive the real `huggingface_hub` client.

It speaks what the client asks of the Hub to create a repository, push to it, and load from it: accounts by token,
public and private repositories, branches, regular and LFS files, one atomic commit a request. Contents lie in a folder
under their SHA-256, trees and commits in memory. What it does not have: the Xet protocol (where `hf_xet` is installed,
clients need `HF_HUB_DISABLE_XET=1`, see `client_environment`, or they upload large files by Xet alone), multi-part
uploads, tags, pull requests, and pages of long listings.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path, PurePosixPath

import yaml

LFS_ENDINGS = (".parquet", ".safetensors", ".bin", ".pt", ".onnx", ".arrow", ".npy", ".npz", ".gz", ".zip")
LFS_BYTES = 10 << 20
REPO = r"(?P<kind>models|datasets|spaces)/(?P<repo_id>[^/]+/[^/]+)"
WEB = r"(?:(?P<kind>datasets|spaces)/)?(?P<repo_id>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Blob:
    """A file of a tree. `oid` is its SHA-1 as git counts it, for LFS files that of the pointer."""

    sha256: str
    size: int
    oid: str
    is_lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.oid


@dataclass
class Repo:
    private: bool
    branches: dict[str, str]
    trees: dict[str, dict[str, Blob]]
    messages: dict[str, str] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.trees else None)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    num_bytes: int


class Refusal(Exception):
    """An answer that is an error, in the form by which the client knows it."""

    def __init__(self, status: HTTPStatus, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.code = status, code


class LoopbackHub:
    """The server; a context manager.

    Args:
        folder (`Path`): Where contents are stored.
        accounts (`dict[str, tuple[str, str]]`): Token → name of the user, `"write"` or `"read"`.

    Attributes:
        url (`str`): The endpoint.
        requests (`list[Request]`): All that was asked, in order.
        uploads_before_drop (`int`, *optional*): So many LFS uploads are taken; then connections break on the way.
        hangs_on (`str`, *optional*): Requests whose path holds this are never answered.
        busy_answers (`int`): So many look-ups of a repository are answered by "too many requests" first.
        break_commits (`bool`): Whether commits are answered by an error of the server.
        reserved (`set[tuple[str, str]]`): Kind and name of repositories that nobody sees and nobody can create.
    """

    def __init__(self, folder: Path, accounts: dict[str, tuple[str, str]]):
        self.folder, self.accounts = Path(folder), accounts
        self.folder.mkdir(parents=True, exist_ok=True)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[Request] = []
        self.uploads_before_drop: int | None = None
        self.break_commits = False
        self.hangs_on: str | None = None
        self.busy_answers = 0
        self.released = threading.Event()
        self.reserved: set[tuple[str, str]] = set()
        self.lock = threading.RLock()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def client_environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Environment variables for a child process whose client shall talk to this server."""
        known = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        return known | {"HF_HUB_DISABLE_TELEMETRY": "1"} | ({"HF_TOKEN": token} if token else {})

    def create(self, kind: str, repo_id: str, private: bool = False) -> Repo:
        with self.lock:
            repo = Repo(private, {}, {})
            attributes = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LFS_ENDINGS)
            self.commit(repo, "main", {".gitattributes": self.store(attributes.encode())}, "initial commit")
            self.repos[kind, repo_id] = repo
            return repo

    def commit(self, repo: Repo, branch: str, tree: dict[str, Blob], message: str) -> str:
        text = f"{len(repo.trees)} {repo.branches.get(branch)} {message} {sorted(tree.items())}"
        commit = hashlib.sha1(text.encode()).hexdigest()
        repo.trees[commit], repo.messages[commit], repo.branches[branch] = tree, message, commit
        return commit

    def store(self, content: bytes, is_lfs: bool = False) -> Blob:
        sha256 = hashlib.sha256(content).hexdigest()
        (self.folder / sha256).write_bytes(content)
        return self.stored(sha256, len(content), content if not is_lfs else None)

    def stored(self, sha256: str, size: int, regular_content: bytes | None = None) -> Blob:
        in_git = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        in_git = in_git if regular_content is None else regular_content
        oid = hashlib.sha1(b"blob %d\0" % len(in_git) + in_git).hexdigest()
        return Blob(sha256, size, oid, regular_content is None)

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        repo = self.repos[kind, repo_id]
        tree = repo.trees[repo.commit_of(revision)]
        return {path: (self.folder / blob.sha256).read_bytes() for path, blob in tree.items()}

    def pushed(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The files without the one that the Hub writes itself."""
        files = self.files(kind, repo_id, revision)
        return {path: content for path, content in files.items() if path != ".gitattributes"}

    def puts(self) -> list[Request]:
        """Requests that sent an LFS file."""
        return [request for request in self.requests if request.method == "PUT"]

    def uploads(self) -> list[Request]:
        """Requests that sent content: LFS files, and commits."""
        return [request for request in self.requests if request.method == "PUT" or "/commit/" in request.path]

    def commits(self, kind: str, repo_id: str) -> list[str]:
        """The messages of the commits."""
        return list(self.repos[kind, repo_id].messages.values())


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection. `ROUTES` names what answers which path."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms between its head and its body

    def log_message(self, *_):
        pass

    def _answer(self):
        self.body = self._read_body()
        if self.body is None:
            self.close_connection = True
            return
        path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        if self.hub.hangs_on is not None and self.hub.hangs_on in path:
            self.hub.released.wait()
            self.close_connection = True
            return
        with self.hub.lock:
            self.hub.requests.append(Request(self.command, path, len(self.body)))
            try:
                if self.hub.busy_answers and self.command == "GET" and path.startswith("/api/"):
                    self.hub.busy_answers -= 1
                    raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests")
                for methods, pattern, answer in ROUTES:
                    if self.command in methods and (found := re.fullmatch(pattern, path.lstrip("/"))):
                        fields = {name: urllib.parse.unquote(text or "") for name, text in found.groupdict().items()}
                        answer(self, **fields)
                        return
                raise Refusal(HTTPStatus.NOT_FOUND, f"No route for {self.command} {path}")
            except Refusal as refusal:
                headers = {"X-Error-Message": str(refusal)} | ({"X-Error-Code": refusal.code} if refusal.code else {})
                self._send_json({"error": str(refusal)}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def _read_body(self) -> bytes | None:
        """`None` where the connection shall break."""
        if self.command == "PUT" and self.hub.uploads_before_drop is not None:
            with self.hub.lock:
                self.hub.uploads_before_drop -= 1
                if self.hub.uploads_before_drop < 0:
                    self.rfile.read(1)
                    return None
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, content: bytes, headers: dict[str, str], status: HTTPStatus = HTTPStatus.OK):
        self.send_response(status)
        for name, text in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_json(self, content, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None):
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {}), status)

    def _account(self) -> tuple[str, str] | None:
        """Name and role of who asks, `None` without a token."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.accounts:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")
        return self.hub.accounts[token] if token else None

    def _check_write(self, owner: str):
        account = self._account()
        if account is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.")
        if account != (owner, "write"):
            raise Refusal(HTTPStatus.FORBIDDEN, f'You don\'t have the rights to write under the namespace "{owner}"')

    def _repo(self, kind: str, repo_id: str, write: bool = False) -> Repo:
        owner, account = repo_id.split("/")[0], self._account()
        repo = self.hub.repos.get((kind or "models", repo_id))
        if repo is None or (repo.private and (account is None or account[0] != owner)):
            status = HTTPStatus.UNAUTHORIZED if account is None else HTTPStatus.NOT_FOUND
            raise Refusal(status, "Repository not found", "RepoNotFound")
        if write:
            self._check_write(owner)
        return repo

    def _tree(self, repo: Repo, revision: str) -> tuple[str, dict[str, Blob]]:
        commit = repo.commit_of(revision)
        if commit is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, repo.trees[commit]

    def whoami(self):
        account = self._account()
        if account is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.")
        token = {"role": account[1], "displayName": "token", "createdAt": DATE}
        user = {"type": "user", "id": account[0], "name": account[0], "fullname": account[0], "orgs": []}
        self._send_json(user | {"auth": {"type": "access_token", "accessToken": token}})

    def create_repo(self):
        asked = json.loads(self.body)
        account, kind = self._account(), asked.get("type", "model") + "s"
        owner = asked.get("organization") or (account[0] if account else "")
        self._check_write(owner)
        repo_id = f"{owner}/{asked['name']}"
        address = {"url": f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{repo_id}"}
        if (kind, repo_id) in self.hub.repos:
            error = {"error": f"You already created this {kind[:-1]} repo"}
            return self._send_json(address | error, HTTPStatus.CONFLICT)
        if (kind, repo_id) in self.hub.reserved:
            raise Refusal(HTTPStatus.CONFLICT, "This name is taken")
        private = asked.get("private", asked.get("visibility") == "private")  # older clients say `private`
        self.hub.create(kind, repo_id, bool(private))
        self._send_json(address | {"name": repo_id})

    def repo_info(self, kind: str, repo_id: str, revision: str = "main"):
        repo = self._repo(kind, repo_id)
        commit, tree = self._tree(repo, revision or "main")
        facts = {"_id": commit[:24], "id": repo_id, "author": repo_id.split("/")[0], "sha": commit, "tags": []}
        facts |= {"lastModified": DATE, "createdAt": DATE, "private": repo.private, "gated": False, "disabled": False}
        self._send_json(
            facts | {"downloads": 0, "likes": 0, "siblings": [{"rfilename": path} for path in sorted(tree)]}
        )

    def refs(self, kind: str, repo_id: str):
        branches = self._repo(kind, repo_id).branches.items()
        known = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit} for name, commit in branches]
        self._send_json({"branches": known, "converts": [], "tags": []})

    def create_branch(self, kind: str, repo_id: str, revision: str):
        repo = self._repo(kind, repo_id, write=True)
        if revision in repo.branches:
            raise Refusal(HTTPStatus.CONFLICT, f"Reference already exists: {revision}")
        repo.branches[revision], _ = self._tree(repo, json.loads(self.body or "{}").get("startingPoint", "main"))
        self._send_json({})

    def _entry(self, path: str, blob: Blob) -> dict:
        entry = {"type": "file", "path": path, "oid": blob.oid, "size": blob.size}
        lfs = {"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.is_lfs else {}
        return entry | lfs

    def tree(self, kind: str, repo_id: str, revision: str, folder: str = ""):
        _, tree = self._tree(self._repo(kind, repo_id), revision)
        prefix = folder.rstrip("/") + "/" if folder else ""
        inside = {path: blob for path, blob in tree.items() if path.startswith(prefix)}
        if folder and not inside:
            raise Refusal(HTTPStatus.NOT_FOUND, f"{folder} does not exist on {revision!r}", "EntryNotFound")
        parents = {str(parent) for path in inside for parent in PurePosixPath(path).parents}
        folders = {parent for parent in parents if parent != "." and parent.startswith(prefix)}
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        entries += [self._entry(path, blob) for path, blob in sorted(inside.items())]
        recursive = self.query.get("recursive") in ("1", "true", "True")
        self._send_json([entry for entry in entries if recursive or "/" not in entry["path"][len(prefix) :]])

    def paths_info(self, kind: str, repo_id: str, revision: str):
        _, tree = self._tree(self._repo(kind, repo_id), revision)
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(self.body)["paths"]
        else:
            paths = urllib.parse.parse_qs(self.body.decode()).get("paths", [])
        known = [self._entry(path, tree[path]) for path in paths if path in tree]
        folders = [path for path in paths if any(other.startswith(f"{path}/") for other in tree)]
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
        self._send_json(known + entries)

    def preupload(self, kind: str, repo_id: str, revision: str):
        _, tree = self._tree(self._repo(kind, repo_id, write=True), revision)
        answers = []
        for asked in json.loads(self.body)["files"]:
            is_lfs = asked["path"].endswith(LFS_ENDINGS) or asked["size"] > LFS_BYTES
            known = {"oid": tree[asked["path"]].etag} if asked["path"] in tree else {}
            mode = {"uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False}
            answers.append({"path": asked["path"]} | mode | known)
        self._send_json({"files": answers})

    def lfs_batch(self, kind: str, repo_id: str):
        self._repo(kind, repo_id, write=True)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            known = {"oid": asked["oid"], "size": asked["size"]}
            if not (self.hub.folder / asked["oid"]).exists():
                known["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}", "header": {}}}
            objects.append(known)
        self._send_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(HTTPStatus.BAD_REQUEST, "The content has another SHA-256 than the address says")
        self.hub.store(self.body, is_lfs=True)
        self._send_json({})

    def commit(self, kind: str, repo_id: str, revision: str):
        repo = self._repo(kind, repo_id, write=True)
        if self.hub.break_commits:
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "The disk is full")
        if revision not in repo.branches:
            raise Refusal(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", "RevisionNotFound")
        head, tree = repo.branches[revision], dict(repo.trees[repo.branches[revision]])
        message = ""
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise Refusal(HTTPStatus.PRECONDITION_FAILED, "A commit has happened since")
            elif item["key"] == "file":
                tree[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif item["key"] == "lfsFile":
                content = self.hub.folder / value["oid"]
                if not content.exists():
                    raise Refusal(HTTPStatus.BAD_REQUEST, f"The LFS object of {value['path']} was not uploaded")
                tree[value["path"]] = self.hub.stored(value["oid"], content.stat().st_size)
            elif item["key"] == "deletedFile":
                tree.pop(value["path"])
            elif item["key"] == "deletedFolder":
                tree = {
                    path: blob for path, blob in tree.items() if not path.startswith(value["path"].rstrip("/") + "/")
                }
        commit = self.hub.commit(repo, revision, tree, message)
        address = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{repo_id}/commit/{commit}"
        self._send_json({"success": True, "commitOid": commit, "commitUrl": address})

    def resolve(self, kind: str, repo_id: str, revision: str, path: str):
        commit, tree = self._tree(self._repo(kind, repo_id), revision)
        known = {"X-Repo-Commit": commit}
        if path not in tree:
            known |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self._send_json({"error": "Entry not found"}, HTTPStatus.NOT_FOUND, known)
        blob = tree[path]
        known |= {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if blob.is_lfs:
            known |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        content = (self.hub.folder / blob.sha256).read_bytes()
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2] or blob.size), blob.size - 1)
            if first >= blob.size:
                known["Content-Range"] = f"bytes */{blob.size}"
                return self._send(b"", known, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            known["Content-Range"] = f"bytes {first}-{last}/{blob.size}"
            return self._send(content[first : last + 1], known, HTTPStatus.PARTIAL_CONTENT)
        self._send(content, known)

    def validate_yaml(self):
        text = json.loads(self.body)["content"]
        found = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
        try:
            metadata = yaml.safe_load(found[1]) if found else {}
            errors = [] if isinstance(metadata, dict) else [{"message": "metadata are no mapping"}]
        except yaml.YAMLError as error:
            errors = [{"message": str(error)}]
        status = HTTPStatus.BAD_REQUEST if errors else HTTPStatus.OK
        self._send_json({"errors": errors, "warnings": []}, status)


ROUTES = (
    (("GET",), "api/whoami-v2", Handler.whoami),
    (("POST",), "api/repos/create", Handler.create_repo),
    (("POST",), "api/validate-yaml", Handler.validate_yaml),
    (("GET",), f"api/{REPO}(?:/revision/{REVISION})?", Handler.repo_info),
    (("GET",), f"api/{REPO}/refs", Handler.refs),
    (("POST",), f"api/{REPO}/branch/{REVISION}", Handler.create_branch),
    (("GET",), f"api/{REPO}/tree/{REVISION}(?:/(?P<folder>.+))?", Handler.tree),
    (("POST",), f"api/{REPO}/paths-info/{REVISION}", Handler.paths_info),
    (("POST",), f"api/{REPO}/preupload/{REVISION}", Handler.preupload),
    (("POST",), f"api/{REPO}/commit/{REVISION}", Handler.commit),
    (("POST",), rf"{WEB}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (("PUT",), "lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_upload),
    (("GET", "HEAD"), f"{WEB}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
)
