/*
 * background.h - work in libuv's thread pool steps back behind the event loop.
 */
#ifndef BASE_BACKGROUND_H
#define BASE_BACKGROUND_H

/*
 * Called first by work in the pool that takes milliseconds: from then on this thread gets the processor when nobody
 * else wants it much. A body is parsed a little later that way, and no stream waits for it.
 */
void background_thread(void);

#endif
