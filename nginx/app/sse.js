/*
 * sse.js - the service's event stream, from pieces of text to events. Pushed; knows no socket.
 */

const LINE_MAX = 128 * 1024 * 1024; // characters; the service's own ceiling of an answer is 32 MiB

export class EventParser {
  #pieces = []; // of the line that is not complete yet: joining them only once keeps a line of many MB linear
  #length = 0;
  #data = []; // the data lines of the event that is not complete yet

  // The events that end within `text`, each the parsed JSON of its data. Throws SyntaxError at what is no JSON.
  push(text) {
    const events = [];
    let start = 0;
    for (let end; (end = text.indexOf('\n', start)) !== -1; start = end + 1) {
      this.#pieces.push(text.slice(start, end));
      const line = this.#pieces.join('');
      this.#pieces = [];
      this.#length = 0;
      this.#take(line.endsWith('\r') ? line.slice(0, -1) : line, events);
    }
    if (start < text.length) {
      this.#length += text.length - start;
      if (this.#length > LINE_MAX) throw new SyntaxError('a line is too long');
      this.#pieces.push(text.slice(start));
    }
    return events;
  }

  #take(line, events) {
    if (line === '') {
      if (this.#data.length > 0) {
        const data = this.#data.join('\n');
        this.#data = [];
        events.push(JSON.parse(data));
      }
    } else if (line.startsWith('data:')) {
      this.#data.push(line.slice(line.startsWith('data: ') ? 6 : 5));
    } // comments and other fields mean nothing here
  }
}
