/*
 * compat.h
 *
 * The differences between the supported versions of PostgreSQL, and the only
 * place that looks at PG_VERSION_NUM.
 */
#ifndef EO_COMPAT_H
#define EO_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "eo_outbox needs PostgreSQL 15 or newer"
#endif

/* 16 renamed relfilenodes to relfilenumbers */
#if PG_VERSION_NUM >= 160000
#define EoRelationFileNumber(rel)	((rel)->rd_locator.relNumber)
#else
#define EoRelationFileNumber(rel)	((rel)->rd_node.relNode)
#endif

/* 16 made short reads of a temporary file an error of their own */
#if PG_VERSION_NUM >= 160000
#define EoBufFileReadExact(file, ptr, size)	BufFileReadExact(file, ptr, size)
#else
#define EoBufFileReadExact(file, ptr, size) \
	do { \
		if (BufFileRead(file, ptr, size) != (size)) \
			ereport(ERROR, \
					(errcode_for_file_access(), \
					 errmsg("could not read spilled events"))); \
	} while (0)
#endif

/* 17 lets the caller provide the lexer's memory */
#if PG_VERSION_NUM >= 170000
#define EoJsonLexer(json, len) \
	makeJsonLexContextCstringLen(NULL, json, len, GetDatabaseEncoding(), false)
#else
#define EoJsonLexer(json, len) \
	makeJsonLexContextCstringLen(json, len, GetDatabaseEncoding(), false)
#endif

/* 17 puts wait event sets under resource owners */
#if PG_VERSION_NUM >= 170000
#define EoCreateWaitEventSet(nevents)	CreateWaitEventSet(NULL, nevents)
#else
#define EoCreateWaitEventSet(nevents)	CreateWaitEventSet(TopMemoryContext, nevents)
#endif

/* 16 unified the checks of ownership */
#if PG_VERSION_NUM >= 160000
#define EoOwnsDatabase(dboid, role)	object_ownercheck(DatabaseRelationId, dboid, role)
#else
#define EoOwnsDatabase(dboid, role)	pg_database_ownercheck(dboid, role)
#endif

/* 16 unified the checks of privileges */
#if PG_VERSION_NUM >= 160000
#define EoExecuteCheck(function, role) \
	object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE)
#else
#define EoExecuteCheck(function, role)	pg_proc_aclcheck(function, role, ACL_EXECUTE)
#endif

/* 18 counts what an index scan does */
#if PG_VERSION_NUM >= 180000
#define EoIndexBeginScan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define EoIndexBeginScan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 16 tells which indexes an update concerns; here HeapTupleIsHeapOnly() does */
#if PG_VERSION_NUM >= 160000
#define EoHeapUpdate(result, rel, tid, tuple, failure) \
	do { \
		LockTupleMode lockmode; \
		TU_UpdateIndexes update_indexes; \
		(result) = heap_update(rel, tid, tuple, GetCurrentCommandId(true), InvalidSnapshot, true, \
							   failure, &lockmode, &update_indexes); \
	} while (0)
#else
#define EoHeapUpdate(result, rel, tid, tuple, failure) \
	do { \
		LockTupleMode lockmode; \
		(result) = heap_update(rel, tid, tuple, GetCurrentCommandId(true), InvalidSnapshot, true, \
							   failure, &lockmode); \
	} while (0)
#endif

/* 17 moved it */
#if PG_VERSION_NUM >= 170000
#define EoMyLocalTransactionId()	(MyProc->vxid.lxid)
#else
#define EoMyLocalTransactionId()	(MyProc->lxid)
#endif

/* 17 numbers processes; those that have transactions come first, in all versions */
#if PG_VERSION_NUM >= 170000
#define EoMyBackendNumber()	(MyProcNumber)
#else
#define EoMyBackendNumber()	(MyProc->pgprocno)
#endif

/* 18 uses the attribute of C11 */
#if PG_VERSION_NUM >= 180000
#define EO_NORETURN	pg_noreturn
#else
#define EO_NORETURN	pg_attribute_noreturn()
#endif

/* 18 has generated columns that are computed when they are read */
#if PG_VERSION_NUM >= 180000
#define EoIsVirtual(attribute)	((attribute)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#define EoExpandVirtual(node, rel, varno)	expand_generated_columns_in_expr(node, rel, varno)
#else
#define EoIsVirtual(attribute)	((void) (attribute), false)
#define EoExpandVirtual(node, rel, varno)	((void) (rel), (node))
#endif

/* 18 has NOT NULL constraints that rows from before need not fulfil */
#if PG_VERSION_NUM >= 180000
#define EoIsNotNull(desc, attnum) \
	(TupleDescCompactAttr(desc, (attnum) - 1)->attnullability == ATTNULLABLE_VALID)
#else
#define EoIsNotNull(desc, attnum)	(TupleDescAttr(desc, (attnum) - 1)->attnotnull)
#endif

/* 18 shows which version of a library is loaded */
#if PG_VERSION_NUM >= 180000
#define EO_MODULE_MAGIC	PG_MODULE_MAGIC_EXT(.name = "eo_outbox", .version = EO_VERSION)
#else
#define EO_MODULE_MAGIC	PG_MODULE_MAGIC
#endif

#endif							/* EO_COMPAT_H */
