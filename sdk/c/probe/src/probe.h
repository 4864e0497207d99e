/* What the files of the probe share. */
#ifndef PROBE_H
#define PROBE_H

#include "wattle.h"

/* Handles an event whose verb is one of a file; gives whether it is. */
typedef bool verbs(wattle_str verb, const wattle_event *event, wattle_out *out);

verbs handle_plain, handle_state, handle_failures, handle_world;

/* An output with a text. */
void send_text(const wattle_event *event, wattle_out *out, wattle_str text);
/* An output with JSON. */
void send_value(const wattle_event *event, wattle_out *out, wattle_writer *json);

#endif
