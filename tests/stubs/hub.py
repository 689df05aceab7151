"""A stub of the Hugging Face hub: models alone, over HTTP and LFS, as its own client asks for them.

with Hub(faults={"preupload": [503]}) as hub:
    ...  # push to hub.url with TOKEN, then look at hub.files and hub.asked
"""

import base64
import hashlib
import json
from collections import Counter

import yaml
from aiohttp import web
from aiohttp.typedefs import Handler

from stubs.threaded import Threaded, listening

TOKEN = "hf_writer"
READER = "hf_reader"
"""A token that may read alone."""
OWNER = "ada"


class Hub(Threaded):
    """A hub in a thread of this process; ``with`` starts and stops it."""

    def __init__(
        self, *, faults: dict[str, list[int]] | None = None, public: tuple[str, ...] = ()
    ) -> None:
        """Prepare to serve.

        Args:
            faults: Statuses that the first calls of a kind get: ``create``, ``about``,
                ``validate``, ``preupload``, ``batch``, ``upload``, ``commit``.
            public: Repositories that exist, and that all may read.
        """
        super().__init__()
        self.faults = {kind: list(statuses) for kind, statuses in (faults or {}).items()}
        self.private = dict.fromkeys(public, False)
        """Of each repository, whether nobody else may read it."""
        self.files: dict[str, bytes] = {}
        """What was committed last, by path."""
        self.large: dict[str, bytes] = {}
        """What came over LFS, by sha256."""
        self.asked: Counter[str] = Counter()

    async def _begin(self) -> tuple[web.BaseRunner, str]:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._checked])
        repo = r"{repo:[\w.-]+/[\w.-]+}"
        app.add_routes(
            [
                web.post("/api/repos/create", self._create, name="create"),
                web.get(f"/api/models/{repo}", self._about, name="about"),
                web.post("/api/validate-yaml", self._validate, name="validate"),
                web.post(f"/api/models/{repo}/preupload/main", self._preupload, name="preupload"),
                web.post(f"/{repo}.git/info/lfs/objects/batch", self._batch, name="batch"),
                web.put("/lfs/{oid}", self._upload, name="upload"),
                web.post(f"/api/models/{repo}/commit/main", self._commit, name="commit"),
            ]
        )
        return await listening(web.AppRunner(app, access_log=None, shutdown_timeout=0.1))

    @web.middleware
    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        kind = request.match_info.route.name or ""
        self.asked[kind] += 1
        if self.faults.get(kind):
            return _refusal(self.faults[kind].pop(0), "out of order")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if kind == "upload":  # its URL is a secret in itself
            assert not token, "the token goes to the hub alone"
        elif token not in (TOKEN, READER):
            return _refusal(401, "Invalid credentials in Authorization header")
        elif token == READER and kind != "about":
            return _refusal(403, "you may not write here")
        elif (
            kind not in ("create", "validate", "")
            and request.match_info["repo"] not in self.private
        ):
            return _refusal(404, "Repository not found")
        return await handler(request)

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        repo = f"{asked['organization'] or OWNER}/{asked['name']}"
        there = repo in self.private
        self.private.setdefault(repo, asked["visibility"] == "private")
        return web.json_response({"url": f"{self.url}/{repo}"}, status=409 if there else 200)

    async def _about(self, request: web.Request) -> web.Response:
        repo = request.match_info["repo"]
        return web.json_response({"id": repo, "private": self.private[repo]})

    async def _validate(self, request: web.Request) -> web.Response:
        head = (await request.json())["content"].split("---\n")[1]
        if "license" in (yaml.safe_load(head) or {}):
            return web.json_response({"errors": [], "warnings": []})
        return web.json_response({"errors": [{"message": '"license" is required'}]}, status=400)

    async def _preupload(self, request: web.Request) -> web.Response:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in (await request.json())["files"]
        ]
        return web.json_response({"files": files})

    async def _batch(self, request: web.Request) -> web.Response:
        objects = [
            {**asked, "actions": {"upload": {"href": f"{self.url}/lfs/{asked['oid']}"}}}
            for asked in (await request.json())["objects"]
            if asked["oid"] not in self.large
        ]
        return web.json_response({"transfer": "basic", "objects": objects})

    async def _upload(self, request: web.Request) -> web.Response:
        content = await request.read()
        if hashlib.sha256(content).hexdigest() != request.match_info["oid"]:
            return _refusal(400, "the content does not match its sha256")
        self.large[request.match_info["oid"]] = content
        return web.Response()

    async def _commit(self, request: web.Request) -> web.Response:
        for line in (await request.text()).splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]
            elif part["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
        url = f"{self.url}/{request.match_info['repo']}/commit/{'1' * 40}"
        return web.json_response({"success": True, "commitOid": "1" * 40, "commitUrl": url})


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response(
        {"error": message}, status=status, headers={"X-Error-Message": message}
    )
