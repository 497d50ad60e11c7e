// Does what spymemcached can do by text, its default, against the server HOST:PORT.
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import net.spy.memcached.CASResponse;
import net.spy.memcached.CASValue;
import net.spy.memcached.DefaultConnectionFactory;
import net.spy.memcached.MemcachedClient;

public class Spy {
    static final List<String> failures = new ArrayList<>();

    static void same(String what, Object got, Object want) {
        if (!Objects.deepEquals(got, want)) {
            failures.add(what + ": " + got + ", want " + want);
        }
    }

    public static void main(String[] args) throws Exception {
        String[] address = args[0].split(":");
        InetSocketAddress at = new InetSocketAddress(address[0], Integer.parseInt(address[1]));
        MemcachedClient c = new MemcachedClient(new DefaultConnectionFactory() {
            @Override
            public long getOperationTimeout() {
                return 10000;
            }
        }, List.of(at));
        same("flush", c.flush().get(), true);
        same("version", new ArrayList<>(c.getVersions().values()), List.of("1.6.18"));
        same("get of nothing", c.get("a"), null);
        same("replace of nothing", c.replace("a", 0, "x").get(), false);
        same("append to nothing", c.append("a", "x").get(), false);
        same("delete of nothing", c.delete("a").get(), false);
        same("touch of nothing", c.touch("a", 10).get(), false);
        same("incr of nothing", c.incr("a", 1), -1L);
        same("set", c.set("a", 100, "one").get(), true);
        same("add of what is there", c.add("a", 0, "x").get(), false);
        same("add", c.add("b", 0, "two").get(), true);
        same("replace", c.replace("b", 0, "three").get(), true);
        same("append", c.append("b", ">").get(), true);
        same("prepend", c.prepend("b", "<").get(), true);
        same("get", c.get("b"), "<three>");
        same("touch", c.touch("b", 100).get(), true);
        same("delete", c.delete("b").get(), true);
        same("get of what is deleted", c.get("b"), null);
        for (Object v : new Object[] {"\u00fc", "", "abc ".repeat(20000), 7, -7L, true, 1.5, new byte[] {13, 10, 0, -1},
                new ArrayList<>(List.of(1, "two")), new HashMap<>(Map.of("a", 1))}) {
            c.set("value", 0, v).get();
            Object got = c.get("value");
            if (v instanceof byte[]) {
                same("bytes", Arrays.equals((byte[]) got, (byte[]) v), true);
            } else {
                same("a value", got, v);
            }
        }
        c.set("n", 0, "5").get();
        same("incr", c.incr("n", 3), 8L);
        same("decr", c.decr("n", 2), 6L);
        same("decr below 0", c.decr("n", 20), 0L);
        same("incr with a first value", c.incr("new", 1, 5), 5L);
        Map<String, Object> many = new HashMap<>();
        for (int i = 0; i < 300; i++) {
            many.put("many-" + i, "v" + i);
            c.set("many-" + i, 100, "v" + i);
        }
        List<String> keys = new ArrayList<>(many.keySet());
        keys.add("none");
        same("getBulk", c.getBulk(keys), many);
        CASValue<Object> cas = c.gets("a");
        same("gets", cas.getValue(), "one");
        same("cas", c.cas("a", cas.getCas(), "four"), CASResponse.OK);
        same("cas again", c.cas("a", cas.getCas(), "five"), CASResponse.EXISTS);
        same("cas of nothing", c.cas("none", 1, "x"), CASResponse.NOT_FOUND);
        same("get behind cas", c.get("a"), "four");
        c.set("short", 1, "x").get();
        for (int i = 0; i < 100 && c.get("short") != null; i++) {
            Thread.sleep(100);
        }
        same("what has expired", c.get("short"), null);
        Map<String, String> stats = c.getStats().values().iterator().next();
        same("stats", stats.containsKey("cmd_get") && stats.containsKey("bytes"), true);
        same("stats settings", c.getStats("settings").values().iterator().next().containsKey("maxconns"), true);
        same("flush", c.flush().get(), true);
        same("get behind a flush", c.get("a"), null);
        c.shutdown();
        failures.forEach(System.err::println);
        System.exit(failures.isEmpty() ? 0 : 1);
    }
}
