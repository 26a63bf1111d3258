/*
 * virtual.c
 *
 * Generated columns that are not stored, but computed when they are read.
 *
 * A trigger and a scan get rows as they are stored: such a column is null there.
 * PostgreSQL allows only its own functions and types in them; so computing one
 * cannot lead back here, or to code of somebody else.
 */
#include "postgres.h"

#include "capture/virtual.h"
#include "compat.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/rel.h"

typedef struct Column
{
	AttrNumber	attnum;
	ExprState  *value;
} Column;

struct EoVirtual
{
	TupleDesc	desc;
	int			ncolumns;
	Column	   *columns;
};

static ExprState *
prepare(Relation rel, Form_pg_attribute attribute)
{
	Node	   *expression = (Node *) makeVar(1, attribute->attnum, attribute->atttypid,
											  attribute->atttypmod, attribute->attcollation, 0);

	expression = EoExpandVirtual(expression, rel, 1);
	return ExecInitExpr(expression_planner((Expr *) expression), NULL);
}

EoVirtual *
eo_virtual_make(Relation rel, TupleDesc desc, const Bitmapset *columns)
{
	EoVirtual  *virtual = palloc0(sizeof(EoVirtual));

	virtual->desc = desc;
	virtual->columns = palloc0(sizeof(Column) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (EoIsVirtual(attribute) && bms_is_member(attribute->attnum, columns))
			virtual->columns[virtual->ncolumns++] = (Column) {
				.attnum = attribute->attnum,
				.value = prepare(rel, attribute)
			};
	}
	if (virtual->ncolumns > 0)
		return virtual;
	pfree(virtual->columns);
	pfree(virtual);
	return NULL;
}

TupleTableSlot *
eo_virtual_fill(EoVirtual *virtual, TupleTableSlot *row)
{
	ExprContext *context = CreateStandaloneExprContext();
	TupleTableSlot *filled = MakeTupleTableSlot(virtual->desc, &TTSOpsVirtual);

	memcpy(filled->tts_values, row->tts_values, sizeof(Datum) * virtual->desc->natts);
	memcpy(filled->tts_isnull, row->tts_isnull, sizeof(bool) * virtual->desc->natts);
	context->ecxt_scantuple = row;
	for (int i = 0; i < virtual->ncolumns; i++)
	{
		Column	   *column = &virtual->columns[i];
		int			at = column->attnum - 1;

		filled->tts_values[at] = ExecEvalExpr(column->value, context, &filled->tts_isnull[at]);
	}
	return ExecStoreVirtualTuple(filled);
}
