-- What holds for every object of the extension: it has a comment, says what it
-- is, and gives nobody rights by accident.
CREATE TEMPORARY VIEW members AS
SELECT d.classid, d.objid, (pg_identify_object(d.classid, d.objid, 0)).*
FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pipeline');
SELECT type, schema, count(*) > 0 AS some FROM members GROUP BY type, schema ORDER BY type, schema;

-- without a comment
SELECT type, identity FROM members
WHERE obj_description(objid, classid::regclass::name) IS NULL
	AND type NOT IN ('type', 'sequence', 'index', 'rule', 'table constraint', 'default value', 'trigger', 'toast table')
ORDER BY type, identity;

-- objects outside of the two schemas
SELECT type, identity FROM members WHERE schema NOT IN ('pipeline', '_pipeline') ORDER BY 1, 2;

-- functions that run with the rights of their owner
SELECT oid::regprocedure FROM pg_proc
WHERE pronamespace IN ('pipeline'::regnamespace, '_pipeline'::regnamespace) AND prosecdef
	AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false);

-- Language, volatility, parallel safety and strictness of each function.
SELECT p.oid::regprocedure AS function, lanname AS language,
	CASE provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END AS volatility,
	CASE proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END AS parallel,
	proisstrict AS strict, prosecdef AS definer
FROM pg_proc p JOIN pg_language l ON l.oid = prolang
WHERE pronamespace IN ('pipeline'::regnamespace, '_pipeline'::regnamespace) ORDER BY p.oid::regprocedure::text COLLATE "C";

-- What a role gets that owns nothing: reading the views, and calling functions
-- once it may use the schema.
SELECT c.oid::regclass AS relation, relkind, array_agg(privilege_type ORDER BY privilege_type) AS public
FROM pg_class c, aclexplode(relacl) a
WHERE relnamespace IN ('pipeline'::regnamespace, '_pipeline'::regnamespace) AND a.grantee = 0
GROUP BY c.oid, relkind ORDER BY c.oid::regclass::text COLLATE "C";
SELECT nspname, grantee::regrole, privilege_type FROM pg_namespace, aclexplode(nspacl)
WHERE nspname IN ('pipeline', '_pipeline') AND grantee <> nspowner
	AND pg_get_userbyid(grantee) IN ('pipeline_reader', 'pipeline_operator', 'pipeline_admin') ORDER BY 1, 2;
-- functions that PUBLIC may not call
SELECT oid::regprocedure FROM pg_proc
WHERE pronamespace IN ('pipeline'::regnamespace, '_pipeline'::regnamespace)
	AND NOT EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
ORDER BY oid::regprocedure::text COLLATE "C";
-- views without a barrier
SELECT oid::regclass FROM pg_class WHERE relnamespace = 'pipeline'::regnamespace AND relkind = 'v'
	AND NOT coalesce('security_barrier=true' = ANY (reloptions), false);

-- Tables have primary keys, and what pg_dump takes along has their sequences.
SELECT c.oid::regclass FROM pg_class c
WHERE relnamespace = '_pipeline'::regnamespace AND relkind = 'r'
	AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p');
SELECT c.oid::regclass AS not_dumped FROM pg_class c
WHERE relnamespace = '_pipeline'::regnamespace AND relkind IN ('r', 'S')
	AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pipeline' AND c.oid = ANY (extconfig))
ORDER BY c.oid::regclass::text COLLATE "C";

-- Settings.
SELECT name, boot_val, unit, context, vartype, min_val, max_val, short_desc, extra_desc
FROM pg_settings WHERE name LIKE 'pipeline.%' ORDER BY name;
SET pipeline.nonsense = 1;
SELECT extname, extrelocatable, extnamespace::regnamespace FROM pg_extension WHERE extname = 'pipeline';
DROP VIEW members;
