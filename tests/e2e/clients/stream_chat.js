async function streamChat(message) {
    const response = await fetch('/chat/stream', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ message: message, session_id: 'web_session_1' })
    });
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let fullContent = '';
    while (true) {
        const { done, value } = await reader.read();
        if (done) break;
        const chunk = decoder.decode(value);
        const lines = chunk.split('\n');
        for (const line of lines) {
            if (line.startsWith('data: ')) {
                try {
                    const data = JSON.parse(line.slice(6));
                    if (data.type === 'chunk') {
                        const content = data.data.content;
                        fullContent += content;
                        updateChatDisplay(content, false);
                    } else if (data.type === 'complete') {
                        updateChatDisplay('', true);
                        console.log('完整回复:', fullContent);
                    }
                } catch (e) {
                    console.error('解析SSE数据失败:', e);
                }
            }
        }
    }
}
