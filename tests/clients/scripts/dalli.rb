# What a Rails cache store does with Dalli, whose default is the binary protocol up to 4.
# Arguments: host:port, and perhaps a user and a password.
require "dalli"

Dalli.logger.level = Logger::WARN

address, username, password = ARGV
options = { namespace: "app", expires_in: 300, compress: true, protocol: :binary }
options.update(username: username, password: password) if username
cache = Dalli::Client.new(address, options)

def check(name, got, expected)
  abort "#{name}: #{got.inspect} instead of #{expected.inspect}" unless got == expected
end

cache.flush
check "miss", cache.get("none"), nil
[1, "text", "", { a: [1, 2.5, nil] }, "x" * 500_000, "\r\n\0".b].each do |value|
  check "set", cache.set("k", value).is_a?(Integer), true
  check "get", cache.get("k"), value
end
check "add", cache.add("k", 1), false
check "replace", [0, false].include?(cache.replace("none", 1)), true
check "fetch", cache.fetch("f", 60) { "made" }, "made"
check "fetched", cache.fetch("f") { abort "made twice" }, "made"
check "cas", cache.cas("f") { |value| value + "!" }.is_a?(Integer), true
check "cas'd", cache.get("f"), "made!"
check "incr", cache.incr("n", 1, 60, 5), 5
check "incr again", cache.incr("n", 2), 7
check "decr", cache.decr("n", 100), 0
check "incr without a default", cache.incr("m"), nil
cache.set("r", "a", 60, raw: true)
check "append", cache.append("r", "b"), true
check "prepend", cache.prepend("r", "c"), true
check "raw", cache.get("r", raw: true), "cab"
cache.multi { 200.times { |n| cache.set("m#{n}", n) } }
names = (0..250).map { |n| "m#{n}" }
check "get_multi", cache.get_multi(names), (0...200).to_h { |n| ["m#{n}", n] }
check "touch", cache.touch("k", 60), true
check "gat", cache.gat("k", 60), "\r\n\0".b
check "delete", cache.delete("k"), true
check "deleted", cache.get("k"), nil
check "stats", cache.stats.values.first["pid"].to_i.positive?, true
check "version", cache.version.values.first.match?(/\A1\.\d+\.\d+\z/), true
cache.close
puts "as expected"
