// Logs are events: one line on stderr, an event name, then key=value pairs.
//   log_info("segment.done", "job=%s i=%d ms=%ld", id, i, ms);
// Safe from any thread: each line is one write.
#ifndef PROTO_BASE_LOG_H
#define PROTO_BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };

// Lines below `level` are dropped. The default is LOG_INFO.
void log_init(enum log_level level, const char *program, int rank);
// From now on each line is a JSON object: time, level, program, rank, event, then the event's own keys.
void log_json(int on);
void log_event(enum log_level level, const char *event, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_debug(...) log_event(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_event(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_event(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__)

#endif
