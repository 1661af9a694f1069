"""The package etcd3 of PyPI against whatever serves etcd's API at HOST:PORT.

Every kind of request that the package can make, each with what must come of it. It ends with 0 if
all of that is so. `scripts/clients` runs it before the gateway.
"""

import queue
import sys
import threading
import uuid

import etcd3
from etcd3 import events, exceptions

# Seconds: far more than anything here takes.
PATIENCE = 20


def keys_and_values(client, name):
    first = client.put(f"{name}/a", "1").header.revision
    assert client.put(f"{name}/b", "2", prev_kv=True).prev_kv.value == b""
    assert client.put(f"{name}/b", "3", prev_kv=True).prev_kv.value == b"2"
    value, about = client.get(f"{name}/b")
    assert (value, about.key) == (b"3", f"{name}/b".encode())
    assert (about.create_revision, about.mod_revision, about.version) == (first + 1, first + 2, 2)
    assert client.get(f"{name}/none") == (None, None)
    assert client.get(f"{name}/a", serializable=True)[0] is not None
    for letter in "dc":
        client.put(f"{name}/{letter}", letter)
    found = [value for value, _ in client.get_prefix(f"{name}/")]
    assert found == [b"1", b"3", b"c", b"d"], found
    found = client.get_prefix(f"{name}/", sort_order="descend", sort_target="mod")
    assert [value for value, _ in found] == [b"c", b"d", b"3", b"1"]
    found = client.get_range(f"{name}/b", f"{name}/d", keys_only=True)
    assert [(value, about.key[-1:]) for value, about in found] == [(b"", b"b"), (b"", b"c")]
    assert client.delete(f"{name}/a") and not client.delete(f"{name}/a")
    gone = client.delete(f"{name}/b", prev_kv=True, return_response=True)
    assert (gone.deleted, gone.prev_kvs[0].value) == (1, b"3")
    assert client.delete_prefix(f"{name}/").deleted == 2
    assert list(client.get_prefix(f"{name}/")) == []


def transactions(client, name):
    key, of = f"{name}/txn", client.transactions
    assert client.put_if_not_exists(key, "1") and not client.put_if_not_exists(key, "2")
    assert client.replace(key, "1", "2") and not client.replace(key, "1", "3")
    done, (read, _, gone) = client.transaction(
        compare=[of.value(key) == "2", of.version(key) > 1, of.mod(key) != 0, of.create(key) > 0],
        success=[of.get(key), of.put(f"{key}/2", "x"), of.delete(key)],
        failure=[],
    )
    assert done and read[0][0] == b"2" and gone.response_delete_range.deleted == 1
    inner = of.txn(
        compare=[of.version(f"{key}/2") == 1], success=[of.put(key, "inner")], failure=[]
    )
    done, _ = client.transaction(compare=[of.create(key) == 1], success=[], failure=[inner])
    assert not done and client.get(key)[0] == b"inner"


def leases(client, name):
    kept, left = client.lease(2), client.lease(2)
    assert kept.granted_ttl == 2 and 0 < kept.remaining_ttl <= 2
    client.put(f"{name}/kept", "1", lease=kept)
    client.put(f"{name}/left", "1", lease=left)
    assert list(kept.keys) == [f"{name}/kept".encode()]
    gone = queue.Queue()
    watch = client.add_watch_callback(f"{name}/left", gone.put)
    # The one is kept alive until the other, which is as old, has ended by itself.
    for _ in range(PATIENCE * 5):
        assert kept.refresh()[0].TTL == 2
        try:
            ended = gone.get(timeout=0.2)
            break
        except queue.Empty:
            pass
    else:
        raise AssertionError("a lease does not end")
    assert isinstance(ended.events[0], events.DeleteEvent)
    client.cancel_watch(watch)
    assert left.remaining_ttl == -1 and left.refresh()[0].TTL == 0
    assert client.get(f"{name}/kept")[0] == b"1"
    kept.revoke()
    assert client.get(f"{name}/kept") == (None, None)
    chosen = client.lease(60, lease_id=4242)
    assert chosen.id == 4242
    try:
        client.lease(60, lease_id=4242)
        raise AssertionError("the same lease twice")
    except exceptions.PreconditionFailedError:
        pass
    chosen.revoke()


def watches(client, name):
    first = client.put(f"{name}/w/1", "before").header.revision
    client.delete(f"{name}/w/1")
    heard, cancel = client.watch_prefix(f"{name}/w/", start_revision=first, prev_kv=True)
    client.put(f"{name}/w/2", "after")
    put, delete, after = (next(heard) for _ in range(3))
    assert isinstance(put, events.PutEvent) and put.value == b"before"
    assert isinstance(delete, events.DeleteEvent) and delete.prev_value == b"before"
    assert (after.key, after.mod_revision) == (f"{name}/w/2".encode(), first + 2)
    cancel()
    writer = threading.Timer(0.2, lambda: client.put(f"{name}/once", "1"))
    writer.start()
    assert client.watch_once(f"{name}/once", timeout=PATIENCE).value == b"1"
    writer.join()
    newest = client.put(f"{name}/w/3", "x").header.revision
    client.compact(newest)
    heard = queue.Queue()
    client.add_watch_callback(f"{name}/w/1", heard.put, start_revision=first)
    late = heard.get(timeout=PATIENCE)
    assert isinstance(late, exceptions.RevisionCompactedError), late
    assert late.compacted_revision == newest


def locks(client, name):
    first, second = client.lock(name, ttl=60), client.lock(name, ttl=60)
    with first:
        assert first.is_acquired() and not second.is_acquired()
        assert not second.acquire(timeout=0.5)
        assert first.refresh()[0].TTL == 60
        waits = threading.Thread(target=second.acquire, kwargs={"timeout": PATIENCE})
        waits.start()
    waits.join(PATIENCE)
    assert second.is_acquired() and not first.is_acquired()
    assert second.release()


def operators(client):
    status = client.status()
    assert status.version.startswith("3.") and status.db_size > 0 and status.raft_term > 0
    members = list(client.members)
    assert members and status.leader.id in [member.id for member in members]
    assert list(client.list_alarms()) == []
    client.defragment()
    assert isinstance(client.hash(), int)


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    name = f"python/{uuid.uuid4()}"
    with etcd3.client(host=host, port=int(port), timeout=PATIENCE) as client:
        for part in (keys_and_values, transactions, leases, watches, locks):
            part(client, name)
            print(f"  {part.__name__}: as expected")
        operators(client)
        print("  operators: as expected")


main()
