"""The RPCs of volumes, version 2."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from grpclib import GRPCError, Status
from modal_proto import api_pb2 as pb

from modal_server.blocks import Store
from modal_server.rpc import Empty, missing
from modal_server.storage import BLOCK, Room, Volume, hashed

V2 = pb.VOLUME_FS_VERSION_V2


class Volumes:
    """All volumes; those of an earlier server in the same folder are there again."""

    def __init__(self, folder: Path, store: Store, room: Room) -> None:
        """Keep the volumes in ``folder``; blocks arrive through ``store``."""
        self._folder, self._store, self._room = folder, store, room
        self._volumes: dict[str, Volume] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            self.make(path.name)

    def make(self, name: str) -> Volume:
        """Return the volume of that name; make it if there is none."""
        spare = self._folder.with_name("spare") / name
        volume = Volume(name, self._folder / name, spare, self._room)
        return self._volumes.setdefault(volume.id, volume)

    def get(self, volume_id: str) -> Volume:
        """Return a volume by its id; a gRPC error if there is none."""
        if volume_id not in self._volumes:
            raise missing(f"Volume {volume_id}")
        return self._volumes[volume_id]

    async def VolumeGetOrCreate(
        self, request: pb.VolumeGetOrCreateRequest
    ) -> pb.VolumeGetOrCreateResponse:
        name = request.deployment_name
        exists = any(volume.name == name for volume in self._volumes.values())
        if not exists and request.object_creation_type == pb.OBJECT_CREATION_TYPE_UNSPECIFIED:
            raise missing(f"Volume '{name}'")
        if exists and request.object_creation_type == pb.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(Status.ALREADY_EXISTS, f"Volume '{name}' already exists")
        if request.version == pb.VOLUME_FS_VERSION_V1:
            raise GRPCError(Status.UNIMPLEMENTED, "the loopback server has volumes of version 2")
        volume = self.make(name)
        return pb.VolumeGetOrCreateResponse(
            volume_id=volume.id, version=V2, metadata=self._metadata(volume)
        )

    async def VolumePutFiles2(
        self, request: pb.VolumePutFiles2Request
    ) -> pb.VolumePutFiles2Response:
        volume = self.get(request.volume_id)
        if request.disallow_overwrite_existing_files:
            for file in request.files:
                if volume.find(file.path).exists():
                    raise GRPCError(Status.ALREADY_EXISTS, f"{file.path} already exists")
        received = self._store.received()
        lacking = await asyncio.to_thread(volume.put, request.files, received)
        sizes = [min(BLOCK, request.files[i].size - j * BLOCK) for i, j in lacking]
        if self._room.left is not None and sum(sizes) > self._room.left:
            # The PUTs would be refused as well, but the client repeats those for minutes.
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "No space left on the volume")
        if not lacking:
            self._store.forget(
                block.contents_sha256 for file in request.files for block in file.blocks
            )
        return pb.VolumePutFiles2Response(
            missing_blocks=[
                pb.VolumePutFiles2Response.MissingBlock(
                    file_index=i,
                    block_index=j,
                    put_url=self._store.url(request.files[i].blocks[j].contents_sha256),
                )
                for i, j in lacking
            ]
        )

    async def VolumeListFiles2(
        self, request: pb.VolumeListFiles2Request
    ) -> AsyncIterator[pb.VolumeListFiles2Response]:
        volume = self.get(request.volume_id)
        try:
            entries = volume.entries(request.path, recursive=request.recursive)
        except FileNotFoundError:
            raise missing(f"path {request.path!r} of volume {volume.name}") from None
        for start in range(0, len(entries), 1000):
            yield pb.VolumeListFiles2Response(entries=entries[start : start + 1000])

    async def VolumeGetFile2(self, request: pb.VolumeGetFile2Request) -> pb.VolumeGetFile2Response:
        volume = self.get(request.volume_id)
        path = volume.find(request.path)
        if not path.is_file():
            raise missing(f"file {request.path!r} of volume {volume.name}")
        if request.start or request.len:
            raise GRPCError(Status.UNIMPLEMENTED, "the loopback server reads whole files only")
        blocks = await asyncio.to_thread(hashed, path)
        self._store.offer(dict(blocks))
        size = path.stat().st_size
        return pb.VolumeGetFile2Response(
            get_urls=[self._store.url(digest) for digest, _ in blocks], size=size, start=0, len=size
        )

    async def VolumeRemoveFile2(self, request: pb.VolumeRemoveFile2Request) -> Empty:
        volume = self.get(request.volume_id)
        try:
            volume.remove(request.path, recursive=request.recursive)
        except FileNotFoundError:
            raise missing(f"path {request.path!r} of volume {volume.name}") from None
        except IsADirectoryError:
            message = f"{request.path!r} is a directory, and recursive is not set"
            raise GRPCError(Status.INVALID_ARGUMENT, message) from None
        return Empty()

    def _metadata(self, volume: Volume) -> pb.VolumeMetadata:
        return pb.VolumeMetadata(version=V2, name=volume.name)
