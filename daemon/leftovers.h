// Folders of worker sockets that a daemon left which was killed.
#ifndef DAEMON_LEFTOVERS_H
#define DAEMON_LEFTOVERS_H

// Removes the folder with all that is in it.
void leftovers_remove(const char *folder);
// Removes those of this user's in `base` where nobody listens any more, and has not for a minute.
void leftovers_sweep(const char *base);

#endif
