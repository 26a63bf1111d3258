"""
samples

Values of every type that PostgreSQL has, as text that its input function takes.
"""

# Made when the tables are; what a dump would call types of users.
USER_TYPES = r"""
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE EXTENSION ltree;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy', 'quo"te''d, {brace}');
CREATE TYPE pair AS (a int, b text, gone int, c numeric[]);
ALTER TYPE pair DROP ATTRIBUTE gone;
CREATE TYPE nest AS ("In ner" pair, pairs pair[], at timestamp, m mood);
CREATE TYPE told AS (x int);
CREATE FUNCTION told(told) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT json_build_object('told', $1.x) $$;
CREATE TYPE floats AS RANGE (subtype = float8, multirange_type_name = floatses);
CREATE TYPE textrange AS RANGE (subtype = text, collation = "C");
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN small AS positive CHECK (value < 100000);
CREATE DOMAIN ints AS int[];
CREATE DOMAIN apair AS pair;
CREATE DOMAIN span AS int4range;
CREATE DOMAIN stamp AS timestamp(3);
CREATE DOMAIN doc AS jsonb;
CREATE DOMAIN money2 AS numeric(12,2);
"""

BIG = "9" * 40 + "." + "1" * 25
LONG = "lorem ipsum \u00fc\u20ac " * 12

SAMPLES = {
    "bool": ["t", "f"],
    "bytea": [r"\x", r"\x00", r"\xdeadbeef00ff", r"\x5c27225c"],
    '"char"': ["a", "", "\\", '"', "~"],
    "name": ["", "x", "Quoted Name", "\u00fc" * 31, "n" * 63, "a\\b\"c'"],
    "int8": ["0", "-1", "9223372036854775807", "-9223372036854775808", "42"],
    "int2": ["0", "-1", "32767", "-32768", "7"],
    "int4": ["0", "-1", "2147483647", "-2147483648", "4711"],
    "text": ["", "x", "NULL", "null", LONG, "tab\tand\nline\r\\.", "\u20ac \U0001f600", '{"a": [1]}', "'\"\\"],
    "oid": ["0", "4294967295", "16384"],
    "tid": ["(0,1)", "(4294967295,65535)"],
    "xid": ["0", "4294967295"],
    "cid": ["0", "4294967295"],
    "xid8": ["0", "18446744073709551615"],
    "json": ['{"a": 1}', "[]", "{}", '[1, 2.50, "x", null, true]', '"s"', "true", "1.50", '{"b": {"c": [{}]}}'],
    "jsonb": ['{"a": 1, "bb": [1, {"x": null}]}', "[]", "{}", '"s"', "false", "-1.500", '["\\u00fc", "\\"\\\\\\n"]',
              "123456789012345678901234567890.5"],
    "jsonpath": ['$."a"[*]?(@ > 1)', "$", 'strict $."x y"'],
    "xml": ["<a>b</a>", "plain", '<a x="1">\u00e9 &amp;<b/></a>'],
    "point": ["(0,0)", "(1.5,-2e+30)", "(Infinity,NaN)"],
    "lseg": ["[(0,0),(1,1)]", "[(1e-300,0),(0,1.25)]"],
    "path": ["((0,0),(1,1))", "[(0,0),(1,1),(2,0.1)]"],
    "box": ["(1,1),(0,0)", "(Infinity,2),(-1,0)"],
    "polygon": ["((0,0))", "((0,0),(1,0),(1,1.5))"],
    "line": ["{1,-1,0}", "{0.1,-1,2}"],
    "circle": ["<(0,0),1>", "<(1.5,-1),2.25>"],
    "float4": ["0", "1.5", "NaN", "Infinity", "-Infinity", "3.4028235e+38", "1e-45", "16777216", "0.1", "1e+10"],
    "float8": ["0", "-1.5", "NaN", "Infinity", "-Infinity", "1.7976931348623157e+308", "5e-324", "0.1", "1e+22",
               "123456789.123456789"],
    "numeric": ["0", "NaN", "Infinity", "-Infinity", "1.10", "-1.100", BIG, "-" + BIG, "0.000000000000000000001",
                "1e+200", "-0.00"],
    "numeric(12,3)": ["0.000", "-1.500", "999999999.999", "NaN"],
    "money": ["$0.00", "-$1,234.56", "$92,233,720,368,547,758.07"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "inet": ["192.168.0.1/24", "192.168.0.1", "::1", "2001:db8::/32"],
    "cidr": ["192.168.0.0/24", "::/0"],
    "aclitem": ["=r/shop_owner", "shop_owner=arwdDxt/shop_owner"],
    "bpchar": ["x", "", "two  "],
    "char(7)": ["x", "seven77", "\u00fc"],
    "varchar": ["x", "", LONG],
    "varchar(9)": ["x", "ninechars"],
    "date": ["2024-02-29", "infinity", "-infinity", "4714-11-24 BC", "5874897-12-31", "0001-01-01", "1969-12-31"],
    "time": ["00:00:00", "24:00:00", "23:59:59.999999", "12:34:56.5"],
    "time(2)": ["12:34:56.78", "00:00:00"],
    "timestamp": ["2024-02-29 12:34:56.789012", "infinity", "-infinity", "294276-12-31 23:59:59.999999",
                  "4714-11-24 00:00:00 BC", "1969-12-31 23:59:59.5", "2000-01-01 00:00:00"],
    "timestamp(3)": ["2024-02-29 12:34:56.789", "infinity"],
    "timestamptz": ["2024-02-29 12:34:56.789012+00", "infinity", "-infinity", "294276-12-30 23:59:59.999999+00",
                    "1883-11-18 12:00:00+00", "0044-03-15 12:00:00+00 BC", "2024-10-27 01:30:00+00"],
    "interval": ["00:00:00", "1 year 2 mons -3 days 04:05:06.789012", "-1 days", "178000000 years", "-00:00:00.000001",
                 "1 mon", "-1 year 1 day"],
    "timetz": ["00:00:00+00", "23:59:59.999999+15:59", "04:05:06-08", "24:00:00-12:30:15"],
    "bit(1)": ["0", "1"],
    "bit(11)": ["10101010111", "00000000000"],
    "varbit": ["", "1", "000000001"],
    "refcursor": ["c", "Cursor 1"],
    "regproc": ["-", "sin", "999999"],
    "regprocedure": ["-", "sin(double precision)", "upper(text)"],
    "regoper": ["0", "#-"],
    "regoperator": ["0", "+(integer,integer)", "-(NONE,bigint)"],
    "regclass": ["-", "pg_class", "pg_catalog.pg_index", '"Odd ""Schema"""."Odd.Table, \u00fc"', "999999"],
    "regcollation": ["-", '"C"'],
    "regtype": ["-", "integer", "character varying", "timestamp with time zone[]"],
    "regrole": ["-", "pg_read_all_data"],
    "regnamespace": ["-", "pg_catalog"],
    "regconfig": ["english", "simple"],
    "regdictionary": ["simple", "english_stem"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "pg_lsn": ["0/0", "FFFFFFFF/FFFFFFFF"],
    "tsvector": ["", "'a':1A,2 'b c':3", "'quo''te':1 'x'"],
    "tsquery": ["", "'a' & !'b'", "'a':*AB <-> 'c d'"],
    "txid_snapshot": ["10:20:10,14,15", "1:1:"],
    "pg_snapshot": ["10:20:10,14,15", "1:1:"],
    "int4range": ["empty", "[1,10)", "(,5)", "[1,)", "(,)"],
    "int8range": ["empty", "[-9223372036854775808,10)", "(,)"],
    "numrange": ["empty", "[1.10,2.5]", "(NaN,)", "(,Infinity)"],
    "tsrange": ["empty", '["2024-01-01 00:00:00","2024-01-01 12:00:00.5")', "[-infinity,infinity]"],
    "tstzrange": ["empty", '["2024-01-01 00:00:00+00","2024-07-01 12:00:00.5+00")', "[,infinity]"],
    "daterange": ["empty", "[2024-01-01,2024-02-01)", "(,infinity)"],
    "int4multirange": ["{}", "{[1,3),[5,7)}", "{(,)}"],
    "int8multirange": ["{}", "{[1,3),[5,)}"],
    "nummultirange": ["{}", "{[1.10,3),(5,7]}"],
    "tsmultirange": ["{}", '{["2024-01-01 00:00:00","2024-01-02 00:00:00")}'],
    "tstzmultirange": ["{}", '{["2024-01-01 00:00:00+00","2024-07-02 00:00:00+00")}'],
    "datemultirange": ["{}", "{[2024-01-01,2024-02-01),[2025-01-01,)}"],

    "mood": ["sad", "ok", "very happy", 'quo"te\'d, {brace}'],
    "pair": ["(1,x,\"{1.10,NaN}\")", "(,,)", '(-7,"a ""b"", (c)\\\\","{}")', "(0,NULL,{NULL})"],
    "nest": ['("(1,x,{})","{""(2,y,{3})"",NULL}","2024-01-01 00:00:00",ok)', "(,,,)",
             '(,{},infinity,"very happy")'],
    "told": ["(1)", "()"],
    "floats": ["empty", "[1.5,2.25)", "(,)", "[0.1,0.30000000000000004]"],
    "floatses": ["{}", "{[1.5,2),[3,4]}"],
    "textrange": ["[a,b)", '["a b","c\\",d"]', "empty"],
    "positive": ["1", "2147483647"],
    "small": ["1", "99999"],
    "ints": ["{}", "{1,NULL,3}", "{{1,2},{3,4}}"],
    "apair": ["(1,x,{1})", "(,,)"],
    "span": ["[1,5)", "empty"],
    "stamp": ["2024-01-01 00:00:00.123", "-infinity"],
    "doc": ['{"d": 1}', "[1]"],
    "money2": ["1.10", "-9999999999.99", "NaN"],
    "citext": ["Abc", "aBC", ""],
    "ltree": ["Top.Science", "", "a"],
    "information_schema.cardinal_number": ["0", "17"],
    "information_schema.sql_identifier": ["a", "Some Name"],
    "information_schema.yes_or_no": ["YES", "NO"],
    "information_schema.character_data": ["x"],
    "information_schema.time_stamp": ["2024-02-29 12:34:56.78+00"],
}

# What JSON, and so to_jsonb(), does not tell apart.
LOSSY = {
    "json": [' { "b":1,"a" :  2, "a": 3 } ', "null", "1e3"],
    "jsonb": ["null", '{"a": null}'],
    "float8": ["-0", "0"],
    "float4": ["-0", "0"],
    "int4[]": ["[5:6]={1,2}", "{}", "[-1:0][2:3]={{1,2},{3,4}}", "{1,2}"],
    "pair[]": ["{}", "[0:0]={\"(1,x,)\"}"],
    "nest": ['(,"[3:3]={""(2,y,{3})""}",,)', "(\"(,,)\",,,)"],
}

# What JSON tells, but does not lead back to: what a cast has made of it, and
# arrays in arrays, and arrays that begin at 0.
ONE_WAY = {
    "hstore": ["", '"a"=>"1"', '"a"=>NULL, "b c"=>"d\\"e"'],
    "hstore[]": ["{}", '{"\\"a\\"=>\\"1\\"",NULL}'],
    "int2vector": ["", "1", "1 -2 3"],
    "oidvector": ["", "1", "1 4294967295 3"],
    "int2vector[]": ["{}", '{"1 2","",NULL}'],
    "oidvector[]": ["{}", '{"1 2",3}'],
    "ints[]": ["{}", '{"{1,2}",NULL,"{{3},{4}}"}'],
    "jsonb[]": ['{"[1]",NULL,"{}","null"}'],
}

# PostgreSQL computes them itself; they have no input.
OPAQUE = {
    "pg_node_tree": "(SELECT adbin FROM pg_catalog.pg_attrdef ORDER BY oid LIMIT 1 OFFSET %d)",
    "pg_ndistinct": "(SELECT stxdndistinct FROM pg_catalog.pg_statistic_ext_data ORDER BY stxoid LIMIT 1 OFFSET %d)",
    "pg_dependencies": "(SELECT stxddependencies FROM pg_catalog.pg_statistic_ext_data ORDER BY stxoid LIMIT 1 OFFSET %d)",
    "pg_mcv_list": "(SELECT stxdmcv FROM pg_catalog.pg_statistic_ext_data ORDER BY stxoid LIMIT 1 OFFSET %d)",
    "gtsvector": "NULL",
    "pg_brin_bloom_summary": "NULL",
    "pg_brin_minmax_multi_summary": "NULL",
}

# Their text depends on the session's time zone.
ZONED = {"timestamptz", "tstzrange", "tstzmultirange", "information_schema.time_stamp"}


def array(elements, delimiter=","):
    """The text of an array of values, each its text or None."""
    return "{" + delimiter.join(
        "NULL" if e is None else '"' + e.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for e in elements) + "}"


def has_array(name):
    return name + "[]" not in ONE_WAY and not name.startswith("information_schema.")


class Type:
    """A type of columns: `declared` as in CREATE TABLE."""

    def __init__(self, declared, samples=None, element=None):
        self.declared = declared
        self.samples = samples
        self.element = element
        base = (element or declared).split("(")[0].removesuffix("[]")
        self.zoned = base in ZONED

    def value(self, rng):
        """The text of some value; None: NULL."""
        if rng.random() < 0.12:
            return None
        if self.element is None:
            return rng.choice(self.samples)
        elements = [e for e in SAMPLES[self.element] if self.element not in ("json", "doc") or e[0] != "["]
        count = rng.choice((0, 1, 1, 2, 3))
        values = [None if rng.random() < 0.1 else rng.choice(elements) for _ in range(count)]
        delimiter = ";" if self.element == "box" else ","
        if count and rng.random() < 0.15:
            return "{" + array(values, delimiter) + delimiter + array(values, delimiter) + "}"
        return array(values, delimiter)

    def literal(self, rng):
        if self.samples is not None and self.declared in OPAQUE:
            sql = self.samples[0]
            return "(%s)::%s" % (sql % rng.randrange(6) if "%" in sql else sql, self.declared)
        value = self.value(rng)
        return "%s::%s" % ("NULL" if value is None else quote(value), self.declared)


def quote(text):
    text = text.replace("'", "''")
    return "E'" + text.replace("\\", "\\\\") + "'" if "\\" in text else "'" + text + "'"


def every_type():
    """Pairs of a type and, if there is one, the type of its arrays."""
    return [(Type(name, samples), Type(name + "[]", element=name) if has_array(name) else None)
            for name, samples in SAMPLES.items()]
