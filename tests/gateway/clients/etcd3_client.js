// The package etcd3 of npm against whatever serves etcd's API at HOST:PORT.
//
// Every kind of request that the package can make, each with what must come of it. It ends with 0 if
// all of that is so. `scripts/clients` runs it before the gateway.
'use strict';

const assert = require('node:assert');
const { randomUUID } = require('node:crypto');
const { once } = require('node:events');
const { Etcd3, EtcdLeaseInvalidError, EtcdLockFailedError } = require('etcd3');

// Milliseconds: far more than anything here takes.
const PATIENCE = 20_000;

// The next `count` events of this name.
function collect(emitter, name, count) {
  return new Promise((resolve, reject) => {
    const heard = [];
    emitter.on('error', reject);
    emitter.on(name, (...event) => {
      heard.push(event);
      if (heard.length === count) resolve(heard);
    });
  });
}

async function keysAndValues(client) {
  const first = Number((await client.put('a').value('1').exec()).header.revision);
  await client.put('b').value('2');
  assert.strictEqual((await client.put('b').value(3).getPrevious()).value.toString(), '2');
  assert.strictEqual(await client.get('a').string(), '1');
  assert.strictEqual(await client.get('b').number(), 3);
  assert.strictEqual(await client.get('none'), null);
  assert.strictEqual(await client.get('b').revision(first + 1).string(), '2');
  assert.ok(await client.get('a').exists());
  await client.put('d').value('4');
  await client.put('c').value('5');
  const all = client.getAll();
  assert.deepStrictEqual(await all.strings(), { a: '1', b: '3', c: '5', d: '4' });
  assert.strictEqual(await client.getAll().count(), 4);
  assert.deepStrictEqual(await client.getAll().sort('Create', 'Descend').limit(2).keys(), ['c', 'd']);
  const page = await client.getAll().limit(3).exec();
  assert.deepStrictEqual([page.kvs.length, page.more, Number(page.count)], [3, true, 4]);
  const range = client.getAll().inRange({ start: 'b', end: 'd' });
  assert.deepStrictEqual(await range.strings(), { b: '3', c: '5' });
  const newer = client.getAll().minModRevision(first + 3);
  assert.deepStrictEqual(await newer.keys(), ['c', 'd']);
  assert.strictEqual(Number((await client.delete().key('a').exec()).deleted), 1);
  const [before] = await client.delete().key('b').getPrevious();
  assert.strictEqual(before.value.toString(), '3');
  assert.strictEqual(Number((await client.delete().all().exec()).deleted), 2);
  assert.deepStrictEqual(await client.getAll().keys(), []);
}

async function transactions(client) {
  const create = (value) =>
    client
      .if('txn', 'Create', '==', 0)
      .then(client.put('txn').value(value))
      .else(client.get('txn'))
      .commit();
  assert.ok((await create('1')).succeeded);
  const second = await create('2');
  assert.ok(!second.succeeded);
  const [kv] = second.responses[0].response_range.kvs;
  assert.strictEqual(kv.value.toString(), '1');
  const third = await client
    .if('txn', 'Value', '==', '1')
    .and('txn', 'Mod', '==', kv.mod_revision)
    .and('txn', 'Version', '<', 2)
    .then(client.delete().key('txn'), client.put('other').value('x'))
    .commit();
  assert.ok(third.succeeded);
  assert.deepStrictEqual(await client.getAll().strings(), { other: 'x' });
  // Increments that conflict, all of which count.
  await client.put('count').value(0);
  const increment = () =>
    client.stm({ retries: 100 }).transact(async (tx) => {
      const count = await tx.get('count').number();
      await tx.put('count').value(count + 1);
    });
  await Promise.all(Array.from({ length: 8 }, increment));
  assert.strictEqual(await client.get('count').number(), 8);
}

async function leases(client) {
  const kept = client.lease(2);
  const left = client.lease(2, { autoKeepAlive: false });
  const watch = await client.watch().key('left').create();
  const gone = once(watch, 'delete');
  await kept.put('kept').value('1');
  await left.put('left').value('1');
  const renewed = once(kept, 'keepaliveSucceeded');
  // The one is kept alive until the other, which is as old, has ended by itself.
  await gone;
  await renewed;
  assert.strictEqual(await client.get('kept').string(), '1');
  assert.strictEqual(await client.get('left'), null);
  const lost = once(left, 'lost');
  await assert.rejects(left.keepaliveOnce(), EtcdLeaseInvalidError);
  await lost;
  await kept.revoke();
  assert.strictEqual(await client.get('kept'), null);
  await watch.cancel();
}

async function watches(client) {
  const first = (await client.put('w/1').value('before').exec()).header.revision;
  await client.delete().key('w/1');
  const builder = client.watch().prefix('w/').startRevision(first).withPreviousKV();
  const watch = await builder.create();
  const [puts, deletes] = [collect(watch, 'put', 2), collect(watch, 'delete', 1)];
  await client.put('w/2').value('after');
  const values = (await puts).map(([kv]) => [kv.key.toString(), kv.value.toString()]);
  assert.deepStrictEqual(values, [['w/1', 'before'], ['w/2', 'after']]);
  const [[, previous]] = await deletes;
  assert.strictEqual(previous.value.toString(), 'before');
  await watch.cancel();
  const only = await client.watch().key('w/3').only('delete').create();
  const one = collect(only, 'data', 1);
  await client.put('w/3').value('x');
  await client.delete().key('w/3');
  const [[data]] = await one;
  assert.deepStrictEqual(data.events.map((event) => event.type), ['Delete']);
  await only.cancel();
}

async function locks(client) {
  const lock = await client.lock('lock').ttl(60).acquire();
  await assert.rejects(client.lock('lock').acquire(), EtcdLockFailedError);
  assert.ok(Number(await lock.leaseId()) > 0);
  await lock.release();
  let inside = 0;
  const enter = async () => {
    for (;;) {
      try {
        return await client.lock('lock').do(async () => {
          inside += 1;
          await client.get('anything');
          assert.strictEqual(inside, 1);
          inside -= 1;
        });
      } catch (why) {
        if (!(why instanceof EtcdLockFailedError)) throw why;
      }
    }
  };
  await Promise.all(Array.from({ length: 4 }, enter));
}

async function elections(client) {
  const election = client.election('election', 60);
  assert.strictEqual(await election.leader(), undefined);
  const first = election.campaign('first');
  await first.wait();
  assert.strictEqual(await election.leader(), 'first');
  const observer = await election.observe();
  assert.strictEqual(observer.leader(), 'first');
  const second = election.campaign('second');
  const elected = second.wait();
  const proclaimed = once(observer, 'change');
  await first.proclaim('first again');
  assert.deepStrictEqual(await proclaimed, ['first again']);
  const changed = new Promise((resolve) => {
    observer.on('change', (leader) => leader === 'second' && resolve());
  });
  await first.resign();
  await elected;
  await changed;
  assert.strictEqual(await election.leader(), 'second');
  await observer.cancel();
  await second.resign();
}

async function operators(_, client) {
  const status = await client.maintenance.status();
  assert.match(status.version, /^3\./);
  const { members } = await client.cluster.memberList({});
  assert.ok(members.some((member) => member.ID === status.leader));
  assert.deepStrictEqual((await client.maintenance.alarm({ action: 'Get' })).alarms, []);
}

async function main() {
  const client = new Etcd3({ hosts: process.argv[2] });
  const late = setTimeout(() => {
    console.error(`not within ${PATIENCE} ms each`);
    process.exit(1);
  }, 7 * PATIENCE);
  for (const part of [keysAndValues, transactions, leases, watches, locks, elections, operators]) {
    await part(client.namespace(`javascript/${randomUUID()}/`), client);
    console.log(`  ${part.name}: as expected`);
  }
  clearTimeout(late);
  client.close();
}

main().catch((why) => {
  console.error(why);
  process.exit(1);
});
