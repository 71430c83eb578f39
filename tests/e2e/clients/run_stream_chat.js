/*
 * Runs stream_chat.js, the documented JavaScript client, as it is: node run_stream_chat.js BASE_URL MESSAGE
 * Supplies what a web page supplies: fetch with relative URLs, updateChatDisplay and console. Prints one JSON object:
 * what was displayed, whether it was finished, what was logged and complained about, and each read of the body in base64.
 */
const fs = require('fs');
const path = require('path');

const [base, message] = process.argv.slice(2);
const told = { status: 0, displayed: [], finished: 0, logged: [], complaints: [], reads: [] };

// The client's own reader, with its reads noted down on the way.
async function pageFetch(url, options) {
    const response = await fetch(base + url, options);
    const reader = response.body.getReader();
    told.status = response.status;
    return { body: { getReader: () => ({
        async read() {
            const got = await reader.read();
            if (!got.done) told.reads.push(Buffer.from(got.value).toString('base64'));
            return got;
        }
    }) } };
}

function updateChatDisplay(content, finished) {
    if (finished) told.finished++;
    else told.displayed.push(content);
}

const page = {
    log: (...words) => told.logged.push(words.map(String)),
    error: (...words) => told.complaints.push(words.map(String)),
};

const source = fs.readFileSync(path.join(__dirname, 'stream_chat.js'), 'utf8');
const streamChat = new Function('fetch', 'updateChatDisplay', 'console', source + '\nreturn streamChat;')(
    pageFetch, updateChatDisplay, page);

streamChat(message).then(() => process.stdout.write(JSON.stringify(told)), (error) => {
    process.stderr.write(error.stack + '\n');
    process.exitCode = 1;
});
