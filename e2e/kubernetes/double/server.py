"""The HTTP side: paths, verbs, watches, and what can go wrong on purpose."""

from __future__ import annotations

import json
import random
import socket
import ssl
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from . import kinds, rbac, table
from .errors import ApiError, NoSuchPath
from .kinds import Kind
from .selectors import Selector
from .store import AuditEntry, Options, Store

PATCHES = {
    "application/merge-patch+json": "merge",
    "application/json-patch+json": "json",
    "application/apply-patch+yaml": "apply",
    "application/apply-patch+cbor": "apply",
}
JSON = "application/json"
DISCOVERY = f"{JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
# A real server sends one about every minute, and one shortly before it ends a watch.
BOOKMARK_SECONDS = 60.0
WATCH_SECONDS = (1800, 3600)
AUDIT_MAX = 200_000
# Made once for 127.0.0.1 and localhost, for tests alone: clients send tokens over TLS only.
TLS = Path(__file__).parent / "tls"
CONTINUE_MAX = 1_000
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"}


@dataclass
class Refusal:
    """Answer so instead of doing what is asked, as often as said."""

    code: int
    verb: str = ""
    plural: str = ""
    retry_after_seconds: int | None = None
    times: int | None = None
    met: int = 0

    def takes(self, verb: str, plural: str) -> bool:
        if (self.verb or verb) != verb or (self.plural or plural) != plural:
            return False
        if self.times is not None and self.met >= self.times:
            return False
        self.met += 1
        return True

    def error(self) -> ApiError:
        message = "the server has received too many requests and has asked us to try again later"
        details = None
        if self.retry_after_seconds is not None:
            details = {"retryAfterSeconds": self.retry_after_seconds}
        return ApiError(
            self.code, message if self.code == 429 else "refused on purpose", "", details
        )


@dataclass
class Target:
    """What a path names."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: dict[str, str] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        return self.query.get(name, "") in ("1", "true", "True")


class ApiServer:
    """A running double on a port of its own."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, store: Store | None = None):
        """`store`: what is there from the beginning, if not only two empty namespaces."""
        self.store, self.tokens = store or Store(), rbac.Tokens()
        self.audit: list[AuditEntry] = []
        self.refusals: list[Refusal] = []
        self.bookmark_seconds = BOOKMARK_SECONDS
        self._running = threading.Event()
        self._connections: set[socket.socket] = set()
        self._epoch = 0
        self._pages: dict[str, tuple[list[dict], int]] = {}
        self._address = (address, port)
        self._server: ThreadingHTTPServer | None = None
        namespaces = self.store.kind("", "v1", "namespaces")
        for name in () if store else ("default", "kube-system"):
            self.store.create(namespaces, "", {"metadata": {"name": name}}, Options())
        self.start()

    @property
    def url(self) -> str:
        return "https://{}:{}".format(*self._address)

    # --- life

    def start(self) -> None:
        """Listens, after a stop on the same port; of what was before, watches learn nothing."""
        server = _Listener(self._address, _Handler)
        server.api = self
        self._address, self._server = server.server_address[:2], server
        self._running.set()
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuses connections and cuts those there are, watches in the middle."""
        if self._server:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
        self.store.compact()
        self.cut()
        self._running.set()

    def cut(self) -> None:
        """Every connection ends now; new ones are served."""
        self._epoch += 1
        for connection in list(self._connections):
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass
        with self.store.changed:
            self.store.changed.notify_all()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Accepts and never answers; watches are silent."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()
        with self.store.changed:
            self.store.changed.notify_all()

    def compact(self) -> None:
        """Watches that begin before now are told 410."""
        self.store.compact()

    def refuse(self, code: int, verb: str = "", plural: str = "", **more) -> Refusal:
        """Until the refusal is taken out of `refusals`, or `times` times."""
        refusal = Refusal(code, verb, plural, **more)
        self.refusals.append(refusal)
        return refusal

    def writes(self, user: str = "") -> list[AuditEntry]:
        """What was written, by one user or by all."""
        return [e for e in list(self.audit) if e.is_write and (not user or e.user == user)]

    def kubeconfig(self, path: Path, token: str = "") -> Path:
        """Writes a kubeconfig for the holder of a token, the administrator if none is given."""
        user = {"name": "user", "user": {"token": token or self.tokens.admin}}
        cluster = {"name": "double", "cluster": {"server": self.url}}
        cluster["cluster"]["certificate-authority"] = str(TLS / "ca.crt")
        context = {"name": "double", "context": {"cluster": "double", "user": "user"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "double"}
        config |= {"clusters": [cluster], "users": [user], "contexts": [context]}
        path.write_text(json.dumps(config, indent=1))
        return path

    # --- requests

    def hold(self) -> None:
        """While paused, nobody gets any further."""
        self._running.wait()

    def resolve(self, path: str) -> Target:
        url = urlsplit(path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[0] == "api" and len(parts) > 2:
            group, version, *rest = "", *parts[1:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, *rest = parts[1:]
        else:
            raise NoSuchPath
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        kind = self.store.kind(group, version, rest[0])
        rest += [""] * (3 - len(rest))
        if not kind or len(rest) > 3 or (rest[2] and rest[2] not in kind.subresources):
            raise NoSuchPath
        if bool(namespace) and not kind.namespaced:
            raise NoSuchPath
        return Target(kind, namespace, rest[1], rest[2], query)

    def discovery(self, path: str, accept: str) -> dict:
        parts = path.split("?")[0].strip("/").split("/")
        served = self.store.served()
        match parts:
            case ["version"]:
                return VERSION
            case ["api" | "apis"] if "APIGroupDiscoveryList" in accept:
                return kinds.aggregated(served, core=parts[0] == "api")
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                groups: dict[str, list[str]] = {}
                for kind in served:
                    versions = groups.setdefault(kind.group, [])
                    if kind.version not in versions:
                        versions.append(kind.version)
                named = [kinds.group(name, found) for name, found in groups.items() if name]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
            case ["api", "v1"]:
                return kinds.resource_list("v1", [kind for kind in served if not kind.group])
            case ["apis", group, version]:
                of = [k for k in served if (k.group, k.version) == (group, version) and group]
                if of:
                    return kinds.resource_list(f"{group}/{version}", of)
        raise NoSuchPath

    def record(self, entry: AuditEntry) -> None:
        self.audit.append(entry)
        if len(self.audit) > AUDIT_MAX:
            del self.audit[: AUDIT_MAX // 2]

    def list(self, target: Target, form: str) -> dict:
        limit, token = int(target.query.get("limit") or 0), target.query.get("continue")
        if token:
            if token not in self._pages:
                raise ApiError(410, "The provided continue parameter is too old")
            items, revision = self._pages.pop(token)
        else:
            selector = self.selector(target)
            asked = target.query.get("resourceVersion") or "0"
            items, revision = self.store.list(target.kind, target.namespace, selector, int(asked))
        metadata: dict = {"resourceVersion": str(revision)}
        if limit and len(items) > limit:
            if len(self._pages) >= CONTINUE_MAX:
                self._pages.clear()
            token = f"page-{random.getrandbits(64):x}"
            self._pages[token] = (items[limit:], revision)
            metadata |= {"continue": token, "remainingItemCount": len(items) - limit}
            items = items[:limit]
        return table.many(items, target.kind, metadata, form)

    def selector(self, target: Target) -> Selector:
        fields = target.query.get("fieldSelector", "")
        if target.name:
            fields = f"metadata.name={target.name}"
        return Selector(target.query.get("labelSelector", ""), fields)

    def write(self, target: Target, verb: str, body, options: Options, how: str = "") -> dict:
        kind, store = target.kind, self.store
        place = (kind, target.namespace, target.name)
        if target.subresource == "token":
            return self._issue_token(target)
        match verb:
            case "create":
                return store.create(kind, target.namespace, body, options)
            case "update":
                return store.update(*place, body, options)
            case "patch":
                return store.patch(*place, how, body, options)
            case "delete":
                given = dict(body or {})
                if "gracePeriodSeconds" in target.query:
                    given["gracePeriodSeconds"] = int(target.query["gracePeriodSeconds"])
                return store.delete(*place, given, options)
        items, _ = store.list(kind, target.namespace, self.selector(target))
        for item in items:
            store.delete(
                kind, item["metadata"].get("namespace", ""), item["metadata"]["name"], {}, options
            )
        return table.many(items, kind, {"resourceVersion": str(store.revision)}, "")

    def _issue_token(self, target: Target) -> dict:
        self.store.get(target.kind, target.namespace, target.name)
        user = rbac.service_account(target.namespace, target.name)
        answer = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
        return answer | {"metadata": {}, "spec": {}, "status": {"token": self.tokens.issue(user)}}


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    api: ApiServer

    def __init__(self, *arguments):
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(TLS / "server.crt", TLS / "server.key")
        self.tls.set_alpn_protocols(["http/1.1"])
        super().__init__(*arguments)

    def get_request(self):
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The handshake is made by the thread that serves the connection, at its first read.
        connection = self.tls.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
        self.api._connections.add(connection)
        return connection, address

    def shutdown_request(self, request) -> None:
        self.api._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address) -> None:
        """Clients that go away, and connections that were cut, are nobody's concern."""
        if not isinstance(sys.exception(), (OSError, ValueError)):
            super().handle_error(request, client_address)


class _Gone(Exception):
    """The connection was cut on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        api = self.server.api
        self.epoch = api._epoch
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        api.hold()
        if self.epoch != api._epoch:
            self.close_connection = True
            return
        try:
            self._answer(method, self._read(body))
        except NoSuchPath:
            self._send(404, b"404 page not found\n", "text/plain; charset=utf-8")
        except ApiError as error:
            self._send_error(error)
        except (_Gone, OSError):
            self.close_connection = True
        except Exception as error:
            traceback.print_exc()
            self._send_error(ApiError(500, f"the double has a bug: {error!r}"))

    def _read(self, body: bytes):
        if not body:
            return None
        try:
            return json.loads(body)
        except ValueError as error:
            media = self.headers.get("content-type", "")
            message = f"the double reads JSON, and this is {media or 'something else'}: {error}"
            raise ApiError(415, message) from error

    def _answer(self, method: str, body) -> None:
        api, path = self.server.api, urlsplit(self.path).path
        if path in ("/healthz", "/livez", "/readyz"):
            self._send(200, b"ok", "text/plain; charset=utf-8")
            return
        user = api.tokens.user(self.headers.get("authorization"))
        accept = self.headers.get("accept", "")
        if method == "GET" and self._is_discovery(path):
            answer = api.discovery(path, accept)
            media = DISCOVERY if answer.get("kind") == "APIGroupDiscoveryList" else JSON
            self._send_json(200, answer, media)
            return
        target = api.resolve(self.path)
        verb = _verb(method, target)
        asked = (verb, target.kind.group, target.kind.plural, target.subresource)
        asked = (*asked, target.namespace, target.name)
        try:
            request = rbac.Request(*asked)
            refusal = next((r for r in list(api.refusals) if r.takes(verb, request.plural)), None)
            if refusal:
                raise refusal.error()
            if not rbac.allowed(api.store, user, request):
                raise request.forbidden(user)
            if verb == "watch":
                api.record(AuditEntry(user, *asked, 200))
                self._watch(target, table.asked(accept))
                return
            # Whoever sees what was written finds it in the log.
            with api.store.changed:
                before = api.store.revision
                code, answer = self._do(target, verb, body, table.asked(accept))
                changed = api.store.revision != before
                api.record(AuditEntry(user, *asked, code, body, changed))
        except ApiError as error:
            api.record(AuditEntry(user, *asked, error.code, body))
            raise
        self._send_json(code, answer)

    def _is_discovery(self, path: str) -> bool:
        parts = path.strip("/").split("/")
        return parts[0] == "version" or len(parts) <= {"api": 2, "apis": 3}.get(parts[0], 0)

    def _do(self, target: Target, verb: str, body, form: str) -> tuple[int, dict]:
        api, query = self.server.api, target.query
        if verb == "list":
            return 200, api.list(target, form)
        if verb == "get":
            item = api.store.get(target.kind, target.namespace, target.name)
            return 200, table.one(item, target.kind, form)
        agent = self.headers.get("user-agent", "unknown").split("/")[0]
        options = Options(
            manager=query.get("fieldManager", agent),
            dry_run=query.get("dryRun") == "All",
            force=target.flag("force"),
            strict=query.get("fieldValidation") == "Strict",
            subresource=target.subresource,
        )
        how = ""
        if verb == "patch":
            media = self.headers.get("content-type", "").split(";")[0]
            how = PATCHES.get(media, "")
            if not how:
                raise ApiError(415, f"the body of the request was in an unknown format: {media}")
        exists = (target.namespace, target.name) in api.store.objects.get(target.kind.key, {})
        answer = api.write(target, verb, body, options, how)
        self.warnings = options.warnings
        made = verb == "create" or (how == "apply" and not exists)
        return (201 if made else 200), table.one(answer, target.kind, form)

    # --- answers

    def _send_json(self, code: int, answer: dict, media: str = JSON, **headers: str) -> None:
        body = json.dumps(answer, separators=(",", ":")).encode()
        self._send(code, body, media, **headers)

    def _send(self, code: int, body: bytes, media: str, **headers: str) -> None:
        self.server.api.hold()
        self.send_response(code)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        for warning in getattr(self, "warnings", ()):
            quoted = warning.replace('"', '\\"')
            self.send_header("Warning", f'299 - "{quoted}"')
        self.warnings = ()
        self.end_headers()
        self.wfile.write(body)

    def _send_error(self, error: ApiError) -> None:
        headers = {}
        if error.retry_after_seconds is not None:
            headers["Retry_After"] = str(error.retry_after_seconds)
        self._send_json(error.code, error.status(), **headers)

    # --- watches

    def _watch(self, target: Target, form: str) -> None:
        api = self.server.api
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self._follow(target, form)
        except ApiError as error:
            self._event("ERROR", error.status())
        self.wfile.write(b"0\r\n\r\n")
        if self.epoch != api._epoch:
            raise _Gone

    def _follow(self, target: Target, form: str) -> None:
        """Sends events until the time asked for is over, or the connection is cut."""
        api, store, kind = self.server.api, self.server.api.store, target.kind
        selector = api.selector(target)
        seconds = float(target.query.get("timeoutSeconds") or random.randint(*WATCH_SECONDS))
        end = time.monotonic() + seconds
        revision = self._begin_watch(target, selector, form)
        bookmarks = target.flag("allowWatchBookmarks")
        bookmark_at = time.monotonic() + api.bookmark_seconds
        while True:
            with store.changed:
                changes = store.changes_after(kind, revision)
                current = store.revision
            for change in changes:
                event = change.event(selector, target.namespace)
                if event:
                    item = event[1]
                    if item["apiVersion"] != kind.api_version:
                        item = item | {"apiVersion": kind.api_version}
                    self._event(event[0], table.one(item, kind, form))
            revision = current
            left = end - time.monotonic()
            due = min(left, bookmark_at - time.monotonic()) <= 0
            if bookmarks and due:
                self._bookmark(kind, revision)
                bookmark_at = time.monotonic() + api.bookmark_seconds
            if left <= 0 or store.kind(kind.group, kind.version, kind.plural) is None:
                return
            with store.changed:
                if store.revision == revision and self.epoch == api._epoch:
                    store.changed.wait(max(0.0, min(left, bookmark_at - time.monotonic(), 1.0)))
            if self.epoch != api._epoch:
                raise _Gone

    def _begin_watch(self, target: Target, selector: Selector, form: str) -> int:
        """The revision from which on changes are sent."""
        store, kind = self.server.api.store, target.kind
        asked = target.query.get("resourceVersion") or "0"
        whole = target.flag("sendInitialEvents")
        if asked != "0" and not whole:
            if int(asked) > store.revision:
                raise ApiError(
                    504, f"Too large resource version: {asked}, current: {store.revision}"
                )
            return int(asked)
        items, revision = store.list(kind, target.namespace, selector)
        for item in items:
            self._event("ADDED", table.one(item, kind, form))
        if whole:
            self._bookmark(kind, revision, {"k8s.io/initial-events-end": "true"})
        return max(revision, store.oldest)

    def _bookmark(self, kind: Kind, revision: int, annotations: dict | None = None) -> None:
        metadata: dict = {"resourceVersion": str(revision)}
        if annotations:
            metadata["annotations"] = annotations
        item = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata}
        if kind.plural == "pods":
            item |= {"spec": {"containers": None}, "status": {}}
        self._event("BOOKMARK", item)

    def _event(self, name: str, item: dict) -> None:
        self.server.api.hold()
        if self.epoch != self.server.api._epoch:
            raise _Gone
        line = json.dumps({"type": name, "object": item}, separators=(",", ":")).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))


def _verb(method: str, target: Target) -> str:
    if method == "GET":
        if target.flag("watch"):
            return "watch"
        return "get" if target.name else "list"
    if method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}[method]
