# Does what dalli can do with the meta protocol, against the server HOST:PORT.
require "set"
require "dalli"

SERVER = ARGV.fetch(0)
$failures = []

def same(what, got, want)
  $failures << "#{what}: #{got.inspect}, want #{want.inspect}" unless got == want
end

def raises(what, error)
  $failures << "#{what}: #{yield.inspect}, want #{error}"
rescue error
  nil
end

c = Dalli::Client.new(SERVER, protocol: :meta)
same("flush", c.flush, [true])
same("version", c.version, { SERVER => "1.6.18" })
same("alive", c.alive!.nil?, false)
same("get of nothing", c.get("a"), nil)
same("replace of nothing", c.replace("a", "x"), false)
same("append to nothing", c.append("a", "x"), false)
same("delete of nothing", c.delete("a"), false)
same("touch of nothing", c.touch("a", 10), nil)
same("set", c.set("a", "one", 100).is_a?(Integer), true)
same("add of what is there", c.add("a", "x"), false)
same("add", c.add("b", "two").is_a?(Integer), true)
same("replace", c.replace("b", "three", 100).is_a?(Integer), true)
same("get", c.get("b"), "three")
c.set("raw", "raw", 100, raw: true)
same("append", c.append("raw", ">"), true)
same("prepend", c.prepend("raw", "<"), true)
same("get behind these", c.get("raw", raw: true), "<raw>")
same("touch", c.touch("b", 100), true)
same("get and touch", c.gat("b", 100), "three")
same("delete", [c.delete("b"), c.get("b")], [true, nil])

[1, -1.5, nil, true, :sign, [1, "two"], { "a" => { b: 1 } }, "ü", "", "abc " * 2000, "\0\xff\n".b].each do |v|
  key = "value"
  c.set(key, v)
  same("get of #{v.class}", c.get(key, cache_nils: true), v)
end
same("a key with a space", [c.set("a b", "x").is_a?(Integer), c.get("a b")], [true, "x"])
same("a key of other letters", [c.set("schlüssel", "x").is_a?(Integer), c.get("schlüssel")], [true, "x"])
long = "k" * 300
same("a long key", [c.set(long, "x").is_a?(Integer), c.get(long)], [true, "x"])

same("incr of nothing", c.incr("n"), nil)
same("incr with a first value", c.incr("n", 1, 100, 5), 5)
same("incr", c.incr("n", 3), 8)
same("decr", c.decr("n", 20), 0)
same("get of a number", c.get("n", raw: true).to_i, 0)

many = (0...300).to_h { |i| ["many-#{i}", "v#{i}"] }
c.quiet { many.each { |k, v| c.set(k, v) } }
same("get_multi", c.get_multi(*many.keys, "none"), many)
same("get_multi_cas", c.get_multi_cas("many-1", "none").transform_values(&:first), { "many-1" => "v1" })
same("cas", c.cas("many-1") { |v| "#{v}!" }.is_a?(Integer), true)
same("get behind cas", c.get("many-1"), "v1!")
_, cas = c.get_cas("many-1")
same("set_cas", c.set_cas("many-1", "w", cas).is_a?(Integer), true)
same("set_cas again", c.set_cas("many-1", "x", cas), false)
same("delete_cas of another", c.delete_cas("many-1", cas), false)
same("cas of nothing", c.cas("none") { "x" }, nil)
same("fetch", c.fetch("fetched", 100) { "by the app" }, "by the app")
same("what it has stored", c.get("fetched"), "by the app")

c.set("short", "x", 1)
100.times { c.get("short") ? sleep(0.1) : break }
same("what has expired", c.get("short"), nil)
stats = c.stats[SERVER]
same("stats", stats.key?("cmd_get") && stats.key?("bytes"), true)
same("stats items", c.stats(:items).key?(SERVER), true)
same("reset_stats", c.reset_stats, [true])
raises("a value too large", Dalli::ValueOverMaxSize) { c.set("large", Random.bytes(2 << 20), 100, raw: true) }
same("with", c.with { |me| me.get("fetched") }, "by the app")
threaded = Dalli::Client.new(SERVER, protocol: :meta, threadsafe: true, compress: true, namespace: "ns")
threads = 4.times.map { |i| Thread.new { 50.times { |j| threaded.set("t#{i}-#{j}", "v" * j) } } }
threads.each(&:join)
same("threads", threaded.get("t3-49"), "v" * 49)
same("their namespace", c.get("ns:t3-49"), "v" * 49)
same("flush", [c.flush_all, c.get("fetched")], [[true], nil])
c.close
threaded.close

abort($failures.join("\n")) unless $failures.empty?
