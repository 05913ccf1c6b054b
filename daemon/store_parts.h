// What the store's files share: its statements, prepared once, and how one is run.
#ifndef DAEMON_STORE_PARTS_H
#define DAEMON_STORE_PARTS_H

#include "daemon/store.h"

#include <sqlite3.h>

enum store_statement {
    STORE_ADD,
    STORE_BATCH,
    STORE_GET,
    STORE_GET_KEY,
    STORE_NEXT,
    STORE_NEXT_OPEN,
    STORE_NEXT_OF_BATCH,
    STORE_MOVE,
    STORE_SPEC,
    STORE_PLAN,
    STORE_DELETE,
    STORE_ADD_CUT,
    STORE_CUTS,
    STORE_COMMIT,
    STORE_COUNT,
    STORE_DROP_TAIL,
    STORE_SEGMENT,
    STORE_REPORT,
    STORE_FILM,
    STORE_ADD_EVENT,
    STORE_DROP_EVENTS,
    STORE_NEXT_EVENT,
    STORE_STATEMENTS
};

enum { STORE_PATH_SIZE = 4096 };

struct store {
    char folder[STORE_PATH_SIZE];
    int lock;
    bool is_new;
    sqlite3 *db;
    sqlite3_stmt *statement[STORE_STATEMENTS];
};

// The statement, its last run forgotten. What any of them gave out was valid until now.
sqlite3_stmt *store_prepare(struct store *s, enum store_statement which);
void store_bind_text(sqlite3_stmt *q, int i, const char *text); // NULL: nothing
int store_run(struct store *s, sqlite3_stmt *q, const char *what, struct err *e);
int store_row(struct store *s, sqlite3_stmt *q, struct err *e); // 1: a row, 0: none
const char *store_text(sqlite3_stmt *q, int i);
int store_begin(struct store *s, struct err *e);
// Ends the transaction: for good, or, after an error, as if nothing had been.
int store_settle(struct store *s, int rc, struct err *e);
int store_fail(const struct store *s, const char *what, struct err *e);

#endif
