import requests
import json

class CozeChatClient:
    def __init__(self, base_url="http://localhost:6001"):
        self.base_url = base_url

    def chat_sync(self, message, session_id=None):
        url = f"{self.base_url}/chat"
        data = {"message": message, "session_id": session_id}
        response = requests.post(url, json=data)
        response.raise_for_status()
        return response.json()

    def chat_stream(self, message, session_id=None):
        url = f"{self.base_url}/chat/stream"
        data = {"message": message, "session_id": session_id}
        response = requests.post(url, json=data, stream=True)
        response.raise_for_status()
        full_content = ""
        for line in response.iter_lines():
            if line:
                line_str = line.decode('utf-8')
                if line_str.startswith('data: '):
                    data = json.loads(line_str[6:])
                    if data['type'] == 'chunk':
                        content = data['data']['content']
                        print(content, end='', flush=True)
                        full_content += content
                    elif data['type'] == 'complete':
                        print("\n")
                        break
        return full_content

def process_stream(response):          # 另一个示例：对每个非空行直接切掉前 6 个字节
    for chunk in response.iter_lines():
        if chunk:
            data = json.loads(chunk.decode('utf-8')[6:])
            if data['type'] == 'chunk':
                display_chunk(data['data']['content'])
