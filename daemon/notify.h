// What the service manager is told, where there is one ($NOTIFY_SOCKET): systemd's protocol, a datagram of lines.
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdint.h>

// "READY=1", "STOPPING=1", "STATUS=...", "WATCHDOG=1". Without a manager, or with one that does not listen: nothing.
void notify_say(const char *lines);
// How often "WATCHDOG=1" is due, in milliseconds: half of what the manager waits. 0: never.
int64_t notify_watchdog_ms(void);

#endif
