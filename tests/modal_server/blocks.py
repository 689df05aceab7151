"""HTTP: blocks of volumes, blobs, and the commits that containers ask for."""

import base64
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from aiohttp import web
from grpclib import GRPCError, Status
from modal_proto import api_pb2 as pb

from modal_server.faults import Faults
from modal_server.rpc import fresh, missing
from modal_server.storage import Block, Full, Room

Commit = Callable[[str, str], Awaitable[str]]
"""Commits the mount at a path of a container; returns what went wrong, or nothing."""


class Store:
    """Content on its way, each under its SHA-256; blobs under an id."""

    def __init__(self, folder: Path, faults: Faults, room: Room) -> None:
        """Keep what arrives in ``folder`` until it is forgotten."""
        self.base = ""
        self.uploaded_bytes = 0
        self.commit: Commit
        self._folder, self._faults, self._room = folder, faults, room
        self._offered: dict[bytes, Block] = {}
        (folder / "blobs").mkdir(parents=True, exist_ok=True)

    def app(self) -> web.Application:
        """Return the HTTP application."""
        app = web.Application(client_max_size=1 << 34)
        app.router.add_put("/blocks/{digest}", self._put_block)
        app.router.add_get("/blocks/{digest}", self._get_block)
        app.router.add_put("/blobs/{id}", self._put_blob)
        app.router.add_get("/blobs/{id}", self._get_blob)
        app.router.add_post("/commit/{task}", self._commit)
        return app

    def url(self, digest: bytes) -> str:
        """Return where the block of that SHA-256 is put and got."""
        return f"{self.base}/blocks/{digest.hex()}"

    def received(self) -> dict[bytes, Block]:
        """Return the blocks that arrived and are in no file yet."""
        paths = [path for path in self._folder.iterdir() if path.is_file()]
        return {bytes.fromhex(path.name): Block(path, 0, path.stat().st_size) for path in paths}

    def forget(self, digests: Iterable[bytes]) -> None:
        """Throw away blocks that are in a file by now."""
        for digest in digests:
            (self._folder / digest.hex()).unlink(missing_ok=True)

    def offer(self, blocks: dict[bytes, Block]) -> None:
        """Let these blocks be downloaded."""
        self._offered.update(blocks)

    def blob(self, blob_id: str) -> bytes:
        """Return the content of a blob; a gRPC error if there is none."""
        path = self._folder / "blobs" / blob_id
        if not path.exists():
            raise missing(f"Blob {blob_id}")
        return path.read_bytes()

    async def BlobCreate(self, request: pb.BlobCreateRequest) -> pb.BlobCreateResponse:
        blob_id = fresh("bl")
        urls = pb.UploadUrlList(items=[f"{self.base}/blobs/{blob_id}"])
        return pb.BlobCreateResponse(blob_ids=[blob_id], upload_urls=urls)

    async def BlobGet(self, request: pb.BlobGetRequest) -> pb.BlobGetResponse:
        return pb.BlobGetResponse(download_url=f"{self.base}/blobs/{request.blob_id}")

    async def _put_block(self, request: web.Request) -> web.Response:
        content = await request.read()
        self._fail("put")
        if hashlib.sha256(content).hexdigest() != request.match_info["digest"]:
            raise web.HTTPBadRequest(text="the content has another SHA-256")
        try:
            self._room.take(len(content))
        except Full as error:
            raise web.HTTPInsufficientStorage(text=str(error)) from None
        draft = self._folder / "blobs" / f"{request.match_info['digest']}.part"
        draft.write_bytes(content)
        draft.replace(self._folder / request.match_info["digest"])
        self.uploaded_bytes += len(content)
        return web.Response(body=b"received")

    async def _get_block(self, request: web.Request) -> web.Response:
        self._fail("get")
        digest = bytes.fromhex(request.match_info["digest"])
        if digest not in self._offered:
            raise web.HTTPNotFound(text="no such block")
        content = self._offered[digest].read()
        if hashlib.sha256(content).digest() != digest:
            raise web.HTTPGone(text="the file has changed meanwhile")
        header = f"sha-256=:{base64.b64encode(digest).decode()}:"
        return web.Response(body=content, headers={"Repr-Digest": header})

    async def _put_blob(self, request: web.Request) -> web.Response:
        content = await request.read()
        (self._folder / "blobs" / request.match_info["id"]).write_bytes(content)
        return web.Response(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    async def _get_blob(self, request: web.Request) -> web.Response:
        try:
            return web.Response(body=self.blob(request.match_info["id"]))
        except GRPCError as error:
            assert error.status is Status.NOT_FOUND
            raise web.HTTPNotFound(text=error.message) from None

    async def _commit(self, request: web.Request) -> web.Response:
        wrong = await self.commit(request.match_info["task"], await request.text())
        return web.Response(text=wrong, status=507 if wrong else 200)

    def _fail(self, method: str) -> None:
        status = self._faults.take_http(method)
        if status is not None:
            raise _failure(status)


def _failure(status: int) -> web.HTTPException:
    class Failure(web.HTTPException):
        status_code = status

    return Failure(text="refused on purpose")
