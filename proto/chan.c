// ZeroMQ sockets. A message is [peer] codec-frame bulk*; the bulk parts are received into zmq_msg_t that stay open
// until the next receive, so that nothing is copied on the way in.
//
// High-water marks are small: frames move under credit and pieces of voice one at a time, so a long queue could only
// hide a peer that no longer drinks. Linger is 0: what matters is on disk, never in a socket.
#include "proto/chan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { CHAN_PARTS = MSG_BULK_MAX + 2, CHAN_HWM = 64, CHAN_MESSAGE_MAX = 1 << 30 };

struct chan {
    void *context, *socket;
    bool router;
    zmq_msg_t part[CHAN_PARTS];
    int n_parts; // open ones
};

static int chan_new(struct chan **out, int type, const char *endpoint, struct err *e)
{
    struct chan *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, E_FATAL, "no memory for a channel");
    c->router = type == ZMQ_ROUTER;
    c->context = zmq_ctx_new();
    c->socket = c->context ? zmq_socket(c->context, type) : NULL;
    if (!c->socket) {
        int rc = err_set(e, E_FATAL, "cannot make a socket: %s", zmq_strerror(errno));
        chan_close(&c);
        return rc;
    }
    int one = 1, zero = 0, hwm = CHAN_HWM;
    int64_t max = CHAN_MESSAGE_MAX;
    zmq_setsockopt(c->socket, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(c->socket, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(c->socket, ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(c->socket, ZMQ_MAXMSGSIZE, &max, sizeof max);
    if (c->router) zmq_setsockopt(c->socket, ZMQ_ROUTER_MANDATORY, &one, sizeof one);
    int rc = c->router ? zmq_bind(c->socket, endpoint) : zmq_connect(c->socket, endpoint);
    if (rc < 0) {
        rc = err_set(e, E_FATAL, "cannot %s %s: %s", c->router ? "bind" : "connect to", endpoint, zmq_strerror(errno));
        chan_close(&c);
        return rc;
    }
    *out = c;
    return 0;
}

int chan_bind(struct chan **out, const char *endpoint, struct err *e) { return chan_new(out, ZMQ_ROUTER, endpoint, e); }

int chan_connect(struct chan **out, const char *endpoint, struct err *e)
{
    return chan_new(out, ZMQ_DEALER, endpoint, e);
}

static void chan_drop(struct chan *c)
{
    while (c->n_parts > 0) zmq_msg_close(&c->part[--c->n_parts]);
}

void chan_close(struct chan **c)
{
    if (!*c) return;
    chan_drop(*c);
    if ((*c)->socket) zmq_close((*c)->socket);
    if ((*c)->context) zmq_ctx_term((*c)->context);
    free(*c);
    *c = NULL;
}

void chan_linger(struct chan *c, int ms) { zmq_setsockopt(c->socket, ZMQ_LINGER, &ms, sizeof ms); }

int chan_fd(const struct chan *c)
{
    int fd = -1;
    size_t n = sizeof fd;
    zmq_getsockopt(c->socket, ZMQ_FD, &fd, &n);
    return fd;
}

// Takes one whole multipart message into c->part. 1, 0 when there is none, E_INPUT when it has too many parts.
static int chan_take(struct chan *c, struct err *e)
{
    int more = 1, n_seen = 0;
    while (more) {
        zmq_msg_t *part = &c->part[c->n_parts];
        zmq_msg_init(part);
        if (zmq_msg_recv(part, c->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(part);
            if (errno == EAGAIN && n_seen == 0) return 0;
            return err_set(e, E_LOST, "the channel broke: %s", zmq_strerror(errno));
        }
        n_seen++;
        more = zmq_msg_more(part);
        if (c->n_parts == CHAN_PARTS - 1 && more)
            zmq_msg_close(part); // keep reading to the end, then refuse
        else
            c->n_parts++;
    }
    if (n_seen > c->n_parts) return err_set(e, E_INPUT, "a message of %d parts", n_seen);
    return 1;
}

int chan_recv(struct chan *c, struct msg *m, struct chan_peer *from, struct err *e)
{
    chan_drop(c);
    int rc = chan_take(c, e);
    if (rc <= 0) return rc;
    int at = 0;
    if (c->router) {
        size_t n = zmq_msg_size(&c->part[0]);
        if (n > CHAN_PEER_MAX || !from) return err_set(e, E_INPUT, "a peer name of %zu bytes", n);
        memcpy(from->id, zmq_msg_data(&c->part[0]), n);
        from->n = (int)n;
        at = 1;
    }
    if (c->n_parts <= at) return err_set(e, E_INPUT, "an empty message");
    struct msg_bulk bulk[MSG_BULK_MAX];
    int n_bulk = c->n_parts - at - 1;
    if (n_bulk > MSG_BULK_MAX) return err_set(e, E_INPUT, "a message with %d bulk parts", n_bulk);
    for (int i = 0; i < n_bulk; i++)
        bulk[i] = (struct msg_bulk){zmq_msg_data(&c->part[at + 1 + i]), zmq_msg_size(&c->part[at + 1 + i])};
    rc = msg_decode(m, zmq_msg_data(&c->part[at]), zmq_msg_size(&c->part[at]), bulk, n_bulk, e);
    return rc < 0 ? rc : 1;
}

static int chan_send_error(struct err *e)
{
    if (errno == EAGAIN) return err_set(e, E_BUSY, "the peer's queue is full");
    return err_set(e, E_LOST, "the peer is gone: %s", zmq_strerror(errno));
}

int chan_send(struct chan *c, const struct chan_peer *to, const struct msg *m, struct err *e)
{
    void *bytes;
    size_t n;
    // The first frame decides whether the whole message is taken: ZeroMQ sends all parts of a message or none.
    if (c->router && zmq_send(c->socket, to->id, (size_t)to->n, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return chan_send_error(e);
    msg_encode(m, &bytes, &n);
    int rc = zmq_send(c->socket, bytes, n, ZMQ_DONTWAIT | (m->n_bulk > 0 ? ZMQ_SNDMORE : 0));
    free(bytes);
    for (int i = 0; rc >= 0 && i < m->n_bulk; i++)
        rc = zmq_send(c->socket, m->bulk[i].data, m->bulk[i].n, ZMQ_DONTWAIT | (i + 1 < m->n_bulk ? ZMQ_SNDMORE : 0));
    return rc < 0 ? chan_send_error(e) : 0;
}
