// What a Node application does with memjs, which speaks the binary protocol alone.
// Arguments: host:port, and perhaps a user and a password.
const assert = require("node:assert");
const memjs = require("memjs");

const [address, username, password] = process.argv.slice(2);
const cache = memjs.Client.create(address, { username, password, timeout: 60, retries: 0, failover: false });

async function main() {
  await cache.flush();
  assert.strictEqual((await cache.get("none")).value, null);
  for (const value of ["text", "", "x".repeat(500_000), "\r\n\0"]) {
    assert.strictEqual(await cache.set("k", value, { expires: 300 }), true);
    const { value: got } = await cache.get("k");
    assert.strictEqual(got.toString(), value);
  }
  assert.strictEqual(await cache.add("k", "other", {}), false);
  assert.strictEqual(await cache.replace("none", "other", {}), false);
  assert.strictEqual(await cache.add("a", "b", {}), true);
  assert.strictEqual(await cache.append("a", "c"), true);
  assert.strictEqual((await cache.get("a")).value.toString(), "bc");
  assert.strictEqual((await cache.increment("n", 1, { initial: 5, expires: 60 })).value, 5);
  assert.strictEqual((await cache.increment("n", 2, {})).value, 7);
  assert.strictEqual((await cache.decrement("n", 100, {})).value, 0);
  assert.strictEqual(await cache.touch("k", 60), true);
  assert.strictEqual(await cache.delete("k"), true);
  assert.strictEqual(await cache.delete("k"), false);
  await Promise.all([...Array(200).keys()].map((n) => cache.set(`m${n}`, `${n}`, {})));
  const all = await Promise.all([...Array(250).keys()].map((n) => cache.get(`m${n}`)));
  all.forEach(({ value }, n) => assert.strictEqual(value && value.toString(), n < 200 ? `${n}` : null));
  const stats = await new Promise((resolve, reject) =>
    cache.stats((error, server, stats) => (error ? reject(error) : resolve(stats))));
  assert.ok(Number(stats.pid) > 0);
}

main().then(
  () => {
    console.log("as expected");
    cache.close();
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
