"""The package aetcd of PyPI against whatever serves etcd's API at HOST:PORT.

Every kind of request that the package can make, each with what must come of it. It ends with 0 if
all of that is so. `scripts/clients` runs it before the gateway.
"""

import asyncio
import sys
import uuid

import aetcd

# Seconds: far more than anything here takes.
PATIENCE = 20


async def keys_and_values(client, name):
    put = await client.put(name + b"/a", b"1")
    first = put.header.revision
    assert (await client.put(name + b"/a", b"2", prev_kv=True)).prev_kv.value == b"1"
    got = await client.get(name + b"/a")
    assert (got.value, got.create_revision, got.mod_revision) == (b"2", first, first + 1)
    assert got.version == 2 and await client.get(name + b"/none") is None
    for letter in (b"c", b"b"):
        await client.put(name + b"/" + letter, letter)
    found = await client.get_prefix(name + b"/")
    assert [kv.value for kv in found] == [b"2", b"b", b"c"]
    assert not found.more and found.count == 3
    found = await client.get_prefix(name + b"/", sort_order="descend", sort_target="create")
    assert [kv.value for kv in found] == [b"b", b"c", b"2"]
    found = await client.get_prefix(name + b"/b", keys_only=True)
    assert [(kv.key, kv.value) for kv in found] == [(name + b"/b", b"")]
    found = await client.get_range(name + b"/b", name + b"/c")
    assert [kv.value for kv in found] == [b"b"]
    gone = await client.delete(name + b"/a", prev_kv=True)
    assert gone.prev_kv.value == b"2" and await client.delete(name + b"/a") is None
    assert (await client.delete_range(name + b"/b", name + b"/c")).deleted == 1
    assert (await client.delete_prefix(name + b"/")).deleted == 1


async def transactions(client, name):
    key, of = name + b"/txn", client.transactions
    done, _ = await client.transaction(
        compare=[of.create(key) == 0], success=[of.put(key, b"1")], failure=[of.get(key)]
    )
    assert done
    done, read = await client.transaction(
        compare=[of.create(key) == 0], success=[of.put(key, b"2")], failure=[of.get(key)]
    )
    assert not done and read[0][0][0] == b"1", read
    assert await client.replace(key, b"1", b"3") and not await client.replace(key, b"1", b"4")
    done, _ = await client.transaction(
        compare=[of.value(key) == b"3", of.version(key) > 1, of.mod(key) > 1],
        success=[of.delete(key)],
        failure=[],
    )
    assert done and await client.get(key) is None


async def leases(client, name):
    kept, left = await client.lease(2), await client.lease(2)
    assert await kept.granted_ttl() == 2 and 0 < await kept.remaining_ttl() <= 2
    await client.put(name + b"/kept", b"1", lease=kept)
    await client.put(name + b"/left", b"1", lease=left)
    assert list(await kept.keys()) == [name + b"/kept"]
    kind = aetcd.EventKind.DELETE
    ended = asyncio.create_task(client.watch_once(name + b"/left", timeout=PATIENCE, kind=kind))
    # The one is kept alive until the other, which is as old, has ended by itself.
    while not ended.done():
        assert (await kept.refresh()).TTL == 2
        await asyncio.wait([ended], timeout=0.2)
    assert ended.result().kind == "DELETE"
    assert await left.remaining_ttl() == -1 and (await left.refresh()).TTL == 0
    assert (await client.get(name + b"/kept")).value == b"1"
    await kept.revoke()
    assert await client.get(name + b"/kept") is None
    try:
        chosen = await client.lease(60, lease_id=4343)
        await client.lease(60, lease_id=4343)
        raise AssertionError("the same lease twice")
    except aetcd.DuplicateLeaseError:
        await chosen.revoke()


async def watches(client, name):
    first = (await client.put(name + b"/w/1", b"before")).header.revision
    await client.delete(name + b"/w/1")
    watch = await client.watch_prefix(name + b"/w/", start_revision=first, prev_kv=True)
    await client.put(name + b"/w/2", b"after")
    heard = []
    async for event in watch:
        heard.append((event.kind, event.kv.key[-1:], event.kv.mod_revision - first))
        if len(heard) == 2:
            assert event.prev_kv.value == b"before"
        if len(heard) == 3:
            break
    assert heard == [("PUT", b"1", 0), ("DELETE", b"1", 1), ("PUT", b"2", 2)], heard
    await watch.cancel()
    newest = (await client.put(name + b"/w/3", b"x")).header.revision
    await client.compact(newest)
    try:
        late = await client.watch(name + b"/w/1", start_revision=first)
        async for event in late:
            raise AssertionError(f"what is compacted is heard: {event}")
    except aetcd.RevisionCompactedError as why:
        assert why.compacted_revision == newest


async def locks(client, name):
    first, second = client.lock(name, ttl=60), client.lock(name, ttl=60)
    async with first:
        assert await first.is_acquired() and not await second.is_acquired()
        assert not await second.acquire(timeout=0.5)
        waits = asyncio.create_task(second.acquire(timeout=PATIENCE))
        await asyncio.wait([waits], timeout=0.2)
        assert not waits.done()
    assert await waits and await second.is_acquired()
    assert await second.release() and not await second.is_acquired()


async def operators(client, _name):
    status = await client.status()
    assert status.version.startswith("3.") and status.db_size > 0
    members = [member async for member in client.members()]
    assert members and status.leader.id in [member.id for member in members]
    assert [alarm async for alarm in client.list_alarms()] == []
    await client.defragment()
    assert isinstance(await client.hash(), int)


async def main():
    host, port = sys.argv[1].rsplit(":", 1)
    name = f"aetcd/{uuid.uuid4()}".encode()
    async with aetcd.Client(host=host, port=int(port), timeout=PATIENCE) as client:
        for part in (keys_and_values, transactions, leases, watches, locks, operators):
            await part(client, name)
            print(f"  {part.__name__}: as expected")


asyncio.run(main())
