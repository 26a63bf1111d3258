-- Changes of tables as events.
\c -
\set SHOW_CONTEXT always
SET client_min_messages = warning;
CREATE SCHEMA capt;
SET search_path = capt, public;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET IntervalStyle = 'postgres';
create table orders(id bigint primary key, item text, amount numeric, gone int, at timestamptz default '2020-01-01', tags text[], doc jsonb);
alter table orders drop column gone;
select eo.capture('orders');
select * from eo.captures order by relation::text;
begin;
insert into orders values (1,'tea',1.50,default,'{a,b}','{"x":[1,{"y":null}]}'),(2,'x','NaN',default,null,null);
update orders set item='coffee' where id=1;
update orders set id=3 where id=2;
delete from orders where id=1;
select topic,key,type,payload from eo.pending();
select bool_and(payload = to_jsonb(o)) from eo.pending() p join orders o on o.id=(p.payload->>'id')::int where p.type like '%inserted' and key='3';
truncate orders;
select topic,key,type,payload from eo.pending();
commit;
select eo.uncapture('orders');
select eo.capture('orders', mode=>'delta', when_clause=>'amount > 10');
select * from eo.captures order by relation::text \gx
begin;
insert into orders values (1,'tea',1.50), (2, 'x', 11);
update orders set amount=20;
update orders set item='y' where id=2;
update orders set item='y' where id=2;
update orders set amount=3 where id=1;
delete from orders;
select topic,key,type,payload from eo.pending();
rollback;
-- partitions
create table p(id int, r text, v int, primary key(id,r)) partition by list(r);
create table p_a partition of p for values in ('a');
select eo.capture('p');
create table p_b partition of p for values in ('b');
create table p_c (id int not null, r text not null, v int); insert into p_c values (9,'c',1);
alter table p attach partition p_c for values in ('c');
begin;
insert into p values (1,'a',1),(2,'b',2),(3,'c',3);
update p set r='b' where id=1;
truncate p_b;
truncate p;
select topic,key,type,payload from eo.pending();
rollback;
-- nested trigger order
create table n(id int primary key, v int);
create function nf() returns trigger language plpgsql as $$begin if new.v < 3 then update n set v = v+1 where id=new.id; perform eo.enqueue('x', to_jsonb(new)); end if; return null; end$$;
create trigger a_nested after insert or update on n for each row execute function nf();
select eo.capture('n', mode=>'delta');
begin; insert into n values (1,0),(2,2);
select topic,key,type,payload from eo.pending(); commit;
select topic,key,type,payload from eo.events where seq >= eo.last_seq() - 9 order by seq;
-- inheritance
create table ip(id int primary key, v int); create table ic(w int) inherits (ip);
select eo.capture('ip', topic=>'inh', when_clause=>'v>0');
create table ic2(z int, primary key(id)) inherits (ip);
begin; insert into ip values(1,1); insert into ic values (2,0,3),(3,1,1); insert into ic2 values (4,4,4); update ip set v=v+1; truncate ip; select topic,key,type,payload from eo.pending(); rollback;
alter table ip rename id to ident;
alter table ip rename v to val;
begin; insert into ic values (3,1,1);select topic,key,type,payload from eo.pending(); rollback;
select * from eo.captures order by relation::text;
alter table ip drop column ident;
select eo.uncapture('ic');
alter table ic no inherit ip;
begin; insert into ic values (3,1,1);select topic,key,type,payload from eo.pending(); rollback;
select eo.uncapture('ip');
select tgrelid::regclass, tgname, eo.capture_setting(tgargs, 'key') as key, eo.capture_setting(tgargs, 'as') as as, eo.capture_setting(tgargs, 'child') as child from pg_trigger where tgname like 'eo_capture%' order by tgrelid::regclass::text, tgname;
-- errors
create table nk(a int);
select eo.capture('nk');
select eo.capture('nk', key_columns=>'{b}');
select eo.capture('nk', key_columns=>'{a}', mode=>'zz');
select eo.capture('nk', key_columns=>'{a}', exclude=>'{a}');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 from x');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a');
\echo a filter is one expression, without any other part of a query
\set VERBOSITY terse
select eo.capture('nk', key_columns=>'{a}', when_clause=>'');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1, a < 5');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 as b');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'distinct a > 1');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 where true');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 group by a');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 having true');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 window w as ()');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 order by a');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 limit 1');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 offset 1');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1 for update');
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > 1; select 1');
\set VERBOSITY default
select count(*) from eo.captures where relation = 'nk'::regclass;
select eo.capture('nk', key_columns=>(select array_agg('c' || i) from generate_series(1, 33) as i));
select eo.capture('nk', key_columns=>'{a}', when_clause=>'a > (select 1)');
select eo.capture('nk', key_columns=>'{a}');
select eo.capture('nk', key_columns=>'{a}');
insert into nk values (null);
select eo.capture('pg_class');
select eo.capture('eo.cursor');
create temp table tt(a int primary key); select eo.capture('tt');
create table big(id int primary key, t text); select eo.capture('big'); set eo_outbox.max_event_size=1024;
insert into big values (7, repeat('x',2000));
create table w(id text primary key); select eo.capture('w'); insert into w values (repeat('k',1025));
reset eo_outbox.max_event_size;
select eo.capture('p_a');

\echo all types, against to_jsonb, and in a session with other settings
create type mood as enum ('sad', 'ok'); create type pair as (x int, y text); create domain posint as int check (value > 0);
create table types (id int generated always as identity primary key, b bool, i2 int2, i4 int4, i8 int8, n numeric, f4 float4, f8 float8, m money, t text, v varchar(9), c char(5), nm name, ch "char",
	by bytea, d date, tm time, tz timetz, ts timestamp, tstz timestamptz, iv interval, u uuid, j json, jb jsonb, bi bit(3), vb varbit, ip inet, ci cidr, mac macaddr, p point, bx box,
	r int4range, dr daterange, mr int4multirange, tv tsvector, tq tsquery, l pg_lsn, o oid, e mood, pr pair, po posint, ia int[], na numeric[], ta text[], ea mood[], pa pair[], da date[], "Quoted, name" text,
	g int generated always as (i4 * 2) stored);
select eo.capture('types');
begin;
insert into types (b, i2, i4, i8, n, f4, f8, m, t, v, c, nm, ch, by, d, tm, tz, ts, tstz, iv, u, j, jb, bi, vb, ip, ci, mac, p, bx, r, dr, mr, tv, tq, l, o, e, pr, po, ia, na, ta, ea, pa, da, "Quoted, name")
values (true, 1, 2, 9007199254740993, 1.500, 1.1, 'NaN', 12.34, E'a\tb"\\', 'v', 'c', 'n', 'x', '\xdeadbeef', 'infinity', '01:02:03', '01:02:03+04', '-infinity', '2026-01-02 03:04:05.678901+00', '1 day 02:03:04', '00000000-0000-0000-0000-000000000001',
	'{"b":1,"a":[1,2,{"z":null}],"a":2}', '{"k":{"n":[]}}', '101', '11', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '(1,2)', '((1,2),(3,4))', '[1,5)', '[2026-01-01,2026-02-01)', '{[1,3),[5,7)}', 'a b', 'a & b', '1/2', 7, 'ok', row(1,'y'), 5,
	'{{1,2},{3,NULL}}', '{1.0,NaN}', '{a,NULL,"c d"}', '{sad,ok}', array[row(1,'a'),row(2,null)]::pair[], '{2026-01-01,infinity}', 'q'),
	(null, null, null, null, 'NaN', 'Infinity', '-Infinity', null, '', '', '', '', '', '', null, null, null, null, null, null, null, 'null', 'null', null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null);
select count(*), bool_and(payload = to_jsonb(x)) from eo.pending() as e join types as x on e.key = x.id::text;
rollback;
begin;
set local DateStyle = 'German, DMY'; set local IntervalStyle = 'sql_standard'; set local extra_float_digits = -3; set local bytea_output = 'escape';
insert into types (f8, iv, dr, by) values (1.0/3, '1 day 02:03:04', '[2026-01-02,2026-03-04)', '\xdeadbeef');
select payload->'f8' as f8, payload->'iv' as iv, payload->'dr' as dr, payload->'by' as by from eo.pending();
show DateStyle;
rollback;
\echo the table changes
create table sh(id int primary key, a text, b int); select eo.capture('sh', mode => 'changelog', exclude => '{b}');
begin; insert into sh values (1,'x',2); select key, type, payload from eo.pending(); commit;
alter table sh rename to shape; alter table shape rename b to hidden; alter table shape rename a to c; alter table shape add d numeric default 1.5;
begin; update shape set c = 'y'; delete from shape; select topic, key, type, payload from eo.pending(); commit;
alter table shape alter id type text; alter table shape drop hidden;
begin; insert into shape values ('k', 'z', 2); truncate shape; select topic, key, type, payload from eo.pending(); commit;
\echo who may
create role regress_capture_owner; create role regress_capture_writer;
grant usage on schema capt to regress_capture_owner, regress_capture_writer; grant create on schema capt to regress_capture_owner;
set role regress_capture_owner;
create table capt.owned(id int primary key); grant insert on capt.owned to regress_capture_writer;
select eo.capture('capt.owned');
reset role; select eo.grant_producer('regress_capture_owner'); set role regress_capture_owner;
select eo.capture('capt.owned'); select eo.capture('capt.nk');
set role regress_capture_writer;
insert into capt.owned values (1);
reset role;
select eo.uncapture('capt.owned');
begin; insert into capt.owned values (2); select count(*) from eo.pending(); rollback;
select eo.uncapture('capt.owned');
\echo by hand
create table hand(id int primary key, v int);
create trigger cap after insert or update or delete on hand for each row execute function eo.capture_row('topic=hand', 'mode=delta', 'nonsense=1');
insert into hand values (1, 1);
drop trigger cap on hand;
create trigger cap before insert on hand for each row execute function eo.capture_row('topic=hand');
insert into hand values (1, 1);
drop trigger cap on hand;
create trigger cap after insert or update or delete on hand for each row execute function eo.capture_row('topic=hand', 'mode=delta');
begin; insert into hand values (1, 1) on conflict (id) do update set v = hand.v + 1; insert into hand values (1, 1) on conflict (id) do update set v = hand.v + 1; update hand set v = v;
merge into hand using (values (1), (2)) as s(i) on id = s.i when matched then delete when not matched then insert values (s.i, 5);
copy hand from stdin;
7	8
\.
select key, type, payload from eo.pending(); rollback;
select eo.uncapture('hand');
begin; prepare transaction 'no'; begin; insert into hand values (3, 3); prepare transaction 'no'; rollback prepared 'no';
set default_transaction_read_only = on; select eo.capture('hand'); reset default_transaction_read_only;
\echo arguments by hand are checked as those of eo.capture()
create or replace trigger cap after insert or update on hand for each row execute function eo.capture_row('as=truncated'); insert into hand values (3, 3);
create or replace trigger cap after insert or update on hand for each row execute function eo.capture_row('topic='); insert into hand values (3, 3);
create or replace trigger cap after insert or update on hand for each row execute function eo.capture_row(E'topic=a\tb'); insert into hand values (3, 3);
create or replace trigger cap after insert or update on hand for each row execute function eo.capture_row('key=id,v,id'); insert into hand values (3, 3);
create or replace trigger cap after insert or update on hand for each row execute function eo.capture_row('mode=delta', 'format=debezium'); insert into hand values (3, 3);
create or replace trigger cap after insert or update on hand for each row execute function eo.capture_row('columns=v', 'exclude=id'); insert into hand values (3, 3);
create or replace trigger cap after insert or update on hand for each row execute function eo.capture_row('topic'); insert into hand values (3, 3);
create or replace trigger cap after insert or update on hand for each row execute function eo.capture_row('key=id,,v'); insert into hand values (3, 3);
create or replace trigger cap after insert or update on hand for each row execute function eo.capture_row('exclude="v'); insert into hand values (3, 3);
drop trigger cap on hand;
select eo.capture('hand', topic => repeat('t', 246));
select eo.capture('hand', topic => repeat('t', 246), type_prefix => 'short');
select eo.uncapture('hand'); select eo.capture('hand', key_columns => '{v,v}');
\echo the columns of a key change
create table kc(a int, b text, v int, primary key (a, b)); select eo.capture('kc', key_columns => '{b,a}');
alter table kc alter a type bigint, add c int; begin; insert into kc values (5000000000, 'x', 1, 2); select key, payload from eo.pending(); rollback;
alter table kc drop column b; alter table kc drop column b cascade; alter table kc drop column v, drop column c;
select tgname from pg_trigger where tgrelid = 'kc'::regclass and not tgisinternal order by 1;
\echo the default key is that of an index which tells all rows apart
create table uk(a int unique, b bool not null, c smallint not null, n numeric not null, e int not null unique deferrable); create unique index on uk (b) where a > 0; create unique index on uk ((c + 1));
select eo.capture('uk');
create unique index uk_key on uk (b, c) include (n); select eo.capture('uk');
begin; insert into uk values (1, true, -5, 'Infinity', 1), (null, false, 7, '-Infinity', 2); select key, payload from eo.pending(); rollback;
\echo whatever its type
create table bk(b bool primary key, n numeric); select eo.capture('bk');
create table ck(c smallint primary key); select eo.capture('ck');
create table nuk(n numeric primary key); select eo.capture('nuk');
create table jk(j jsonb primary key); select eo.capture('jk');
create table ak(a int[] primary key); select eo.capture('ak');
begin; insert into bk values (true, 'Infinity'), (false, 'NaN'); insert into ck values (-5); insert into nuk values (1.50), ('NaN'), ('Infinity');
insert into jk values ('true'), ('"text"'), ('5.0'), ('null'), ('{"b": [1], "a": null}'); insert into ak values ('{1,NULL}'), ('{}');
select topic, key, payload from eo.pending(); rollback;
\echo names that triggers do not keep follow a renamed schema
create schema capt_old; create table capt_old.named(id int primary key); create trigger cap after insert on capt_old.named for each row execute function eo.capture_row();
begin; insert into capt_old.named values (1); alter schema capt_old rename to capt_new; insert into capt_new.named values (2); select topic, key from eo.pending(); rollback;
drop schema capt_old cascade;
\echo children come and go
create table par(id int primary key, v int); select eo.capture('par', mode => 'changelog');
create table kid(w int) inherits (par); create temp table kid_temp() inherits (par);
create schema capt_kids create table kid2() inherits (kid);
begin; insert into kid values (1, 2, 3); insert into capt_kids.kid2 values (2, 2, 3); insert into kid_temp values (3, 1); truncate par; select topic, type, key from eo.pending(); rollback;
alter table par enable always trigger eo_capture;
create table kid3() inherits (par);
select tgrelid::regclass, tgname, tgenabled from pg_trigger where tgrelid in ('kid'::regclass, 'kid3'::regclass) order by 1, 2;
alter table kid no inherit par;
select tgrelid::regclass, tgname from pg_trigger where tgrelid in ('kid'::regclass, 'capt_kids.kid2'::regclass) order by 1, 2;
create table par2(id int primary key, v int); select eo.capture('par2'); alter table kid inherit par2; alter table kid inherit par;
begin; insert into capt_kids.kid2 values (2, 2, 3); select topic from eo.pending(); rollback;
select eo.uncapture('par2');
begin; insert into capt_kids.kid2 values (2, 2, 3); select topic from eo.pending(); rollback;
select eo.capture('kid3');
create table own() inherits (par2); select eo.capture('own', key_columns => '{id}'); select eo.capture('par2'); select eo.uncapture('par2');
select relation, topic from eo.captures where relation in ('own'::regclass, 'par'::regclass, 'par2'::regclass) order by 1;
drop schema capt_kids cascade;
create table parts(id int primary key, v int) partition by range (id); create table part partition of parts for values from (0) to (10);
create table other(id int primary key, v int) partition by range (id); select eo.capture('parts'); select eo.capture('other');
insert into part values (1, 1); alter table parts detach partition part;
select tgname from pg_trigger where tgrelid = 'part'::regclass;
alter table other attach partition part for values from (0) to (10);
begin; truncate part; select topic, type, key from eo.pending(); rollback;
alter table other detach partition part; select eo.capture('part');
\echo commands in the middle of others, and rows that exchange their keys
create table rep(id int primary key, v int);
create function rep_before() returns trigger language plpgsql as $$begin delete from rep where id = new.id; return new; end$$;
create function rep_after() returns trigger language plpgsql as $$begin if new.v = 3 then update rep set v = 4 where id = new.id; elsif new.v = 7 then delete from rep where id = new.id; end if; return null; end$$;
create trigger a_before before insert on rep for each row execute function rep_before();
create trigger a_after after insert on rep for each row execute function rep_after();
create function rep_free(int) returns int language plpgsql as $$begin delete from rep where id = $1; return $1; end$$;
select eo.capture('rep', mode => 'changelog');
begin; insert into rep values (1, 1); insert into rep values (1, 2), (2, 3), (3, 7), (1, 5); select key, type, payload from eo.pending(); select * from rep order by id; rollback;
begin; set local eo_outbox.buffer_memory = '64kB'; insert into rep select g, 1 from generate_series(1, 1000) g; insert into rep values (1, 2); savepoint s; insert into rep values (1, 2); rollback to s; insert into rep values (1, 3); select key, type, payload from eo.pending() where key = '1'; rollback;
begin; insert into rep values (1, 1), (2, 2); update rep set id = rep_free(2) where id = 1; select key, type, payload from eo.pending(); select * from rep; rollback;
create table seat(id int primary key deferrable, v int); select eo.capture('seat', mode => 'changelog');
begin; insert into seat values (1, 1), (2, 2), (3, 3); update seat set id = 4 - id; update seat set id = id + 1; select key, type, payload from eo.pending(); select * from seat order by id; rollback;
\echo names are told with their schema, whatever the path
create type kinds as (of regclass, types regtype[]);
create table named(id regclass primary key, k kinds, f regprocedure); select eo.capture('named');
begin; insert into named values ('named', row('hand', '{pair,int4}')::kinds, 'rep_free(int)'); select key, payload from eo.pending(); show search_path; rollback;
\echo values out of line that do not change
create table wide(id int primary key, a text, b text); alter table wide alter a set storage external, alter b set storage main; select eo.capture('wide', mode => 'delta');
begin; insert into wide values (1, repeat('a', 10000), repeat('b', 10000)); update wide set b = 'c'; update wide set a = a || ''; update wide set a = a || 'x', b = 'c'; select type, length(payload::text), payload ? 'a' as a, payload ? 'b' as b from eo.pending() where type like '%updated'; rollback;
reset search_path; drop schema capt cascade; revoke all on all functions in schema eo from regress_capture_owner; revoke all on all tables in schema eo from regress_capture_owner; revoke usage on schema eo from regress_capture_owner; drop role regress_capture_owner, regress_capture_writer;
