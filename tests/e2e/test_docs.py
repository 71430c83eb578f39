"""/docs in a real Chromium: every route is shown and can be tried, streams too, and nothing is asked of anybody else."""
import json
import urllib.parse

import pytest
import requests

from browser import DESKTOP, PHONE, Browser
from contract import operations, print_document
from stack import wait_for


@pytest.fixture(scope='module')
def browser():
    made = Browser()
    yield made
    made.close_all()


@pytest.fixture(autouse=True)
def nothing_to_complain_of(request):
    """Neither a blocked style or script, nor a request that failed, nor one to another origin."""
    yield
    if 'browser' not in request.fixturenames:
        return
    browser = request.getfixturevalue('browser')
    browser.listen()
    complaints, browser.complaints = browser.complaints, []
    asked, browser.requests = browser.requests, []
    assert complaints == []
    origins = {urllib.parse.urlsplit(url).netloc for url in asked if url.startswith('http')}
    assert len(origins) <= 1 and all(origin.startswith('127.0.0.1:') for origin in origins), origins


def forgive(browser, *causes):
    """The console tells of each error that a test makes on purpose."""
    browser.listen()
    browser.complaints = [said for said in browser.complaints if not any(cause in said for cause in causes)]


def open_docs(browser, stack):
    browser.get('about:blank')  # else a fragment only scrolls
    browser.get(stack.url + '/docs')
    browser.one('.opblock')


def open_route(browser, operation_id):
    browser.one('[id$="-%s"] .opblock-summary-control' % operation_id).click()
    return browser.one('[id$="-%s"] .execute' % operation_id)


def execute(browser, operation_id):
    """Presses the button and waits for the answer: (status, body)."""
    browser.one('[id$="-%s"] .execute' % operation_id).click()
    row = browser.one('[id$="-%s"] .live-responses-table .response' % operation_id)
    wait_for(lambda: browser.all('[id$="-%s"] .live-responses-table .microlight' % operation_id), what='the answer')
    return (int(row.find_element('css selector', '.response-col_status').text.split()[0]),
            row.find_element('css selector', '.microlight').text)


@pytest.mark.parametrize('size', [DESKTOP, PHONE], ids=['desktop', 'phone'])
def test_it_shows_every_route(stack, browser, size):
    browser.size(size)
    open_docs(browser, stack)
    shown = {(block.find_element('css selector', '.opblock-summary-method').text,
              block.find_element('css selector', '.opblock-summary-path').get_attribute('data-path'))
             for block in browser.all('.opblock')}
    assert shown == {(method, path) for method, path, _ in operations(print_document())}
    assert browser.js('document.documentElement.scrollWidth') == size[0], 'it scrolls sideways'


@pytest.mark.parametrize('size', [DESKTOP, PHONE], ids=['desktop', 'phone'])
def test_a_message_can_be_sent(stack, browser, size):
    browser.size(size)
    open_docs(browser, stack)
    open_route(browser, 'chat')
    status, body = execute(browser, 'chat')
    assert status == 200
    answer = json.loads(body)
    assert answer['response'].startswith('收到：“我最近工作压力很大”')
    assert stack.info(answer['session_id']).json()['message_count'] == 1
    assert browser.js('document.documentElement.scrollWidth') == size[0], 'it scrolls sideways'


def test_a_stream_can_be_tried(stack, browser):
    browser.size(DESKTOP)
    open_docs(browser, stack)
    open_route(browser, 'streamChat')
    status, body = execute(browser, 'streamChat')
    assert status == 200
    events = [json.loads(line[6:]) for line in body.splitlines() if line]
    assert [event['type'] for event in events[-2:]] == ['chunk', 'complete']


def test_the_routes_of_a_session_can_be_tried(stack, browser):
    stack.chat('你好', session_id='demo_session_1')
    open_docs(browser, stack)
    for operation_id in ('getSessionInfo', 'bindSession', 'clearSession', 'listSessions', 'getHealth', 'getMetrics'):
        open_route(browser, operation_id)
        assert execute(browser, operation_id)[0] == 200


def test_a_key_can_be_given(make_stack, browser):
    stack = make_stack(WORKERS='1', API_KEYS='secret-key')
    open_docs(browser, stack)
    open_route(browser, 'chat')
    assert execute(browser, 'chat')[0] == 401
    browser.one('.btn.authorize').click()
    browser.one('.auth-container input').send_keys('secret-key')
    browser.one('.auth-container .btn.authorize').click()
    browser.one('.auth-container .btn-done').click()
    browser.one('[id$="-chat"] .btn-clear').click()
    assert execute(browser, 'chat')[0] == 200
    forgive(browser, 'status of 401')


def test_without_swagger_ui_it_says_where_the_document_is(stack, browser):
    browser.execute_cdp_cmd('Network.enable', {})
    browser.execute_cdp_cmd('Network.setBlockedURLs', {'urls': ['*swagger-ui-bundle.js*']})
    try:
        browser.get('about:blank')
        browser.get(stack.url + '/docs')
        assert 'Swagger UI' in browser.one('#missing').text
        browser.one('#plain a').click()
        wait_for(lambda: browser.current_url == stack.url + '/openapi.json', what='the document')
    finally:
        browser.execute_cdp_cmd('Network.setBlockedURLs', {'urls': []})
    forgive(browser, 'swagger-ui-bundle.js')


# ---- how nginx sends the files ----

FILES = {'/docs': 'text/html; charset=utf-8', '/docs/docs.js': 'text/javascript; charset=utf-8',
         '/docs/docs.css': 'text/css; charset=utf-8', '/docs/vendor/swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
         '/docs/vendor/swagger-ui.css': 'text/css; charset=utf-8', '/docs/vendor/favicon-32x32.png': 'image/png'}


@pytest.mark.parametrize('path', FILES)
def test_a_file_of_the_page(stack, path):
    answer = requests.get(stack.url + path, timeout=10)
    assert (answer.status_code, answer.headers['Content-Type']) == (200, FILES[path])
    policy = answer.headers['Content-Security-Policy']
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "style-src 'self';" in policy
    assert 'unsafe' not in policy and "frame-ancestors 'none'" in policy
    assert answer.headers['X-Content-Type-Options'] == 'nosniff'
    assert answer.headers['Cache-Control'] == 'no-cache'
    again = requests.get(stack.url + path, headers={'If-None-Match': answer.headers['ETag']}, timeout=10)
    assert again.status_code == 304, 'after an upgrade it is asked for anew, before it is not sent again'


def test_swagger_ui_is_sent_compressed(stack):
    answer = requests.get(stack.url + '/docs/vendor/swagger-ui-bundle.js', timeout=10)
    assert answer.headers['Content-Encoding'] == 'gzip' and int(answer.headers['Content-Length']) < len(answer.content) / 3
    plain = requests.get(stack.url + '/docs/vendor/swagger-ui-bundle.js', headers={'Accept-Encoding': 'identity'}, timeout=10)
    assert plain.content == answer.content and 'Content-Encoding' not in plain.headers


@pytest.mark.parametrize('path', ['/docs/index.js', '/docs/vendor/package.json', '/docs/vendor/', '/docs/vendor/%2e%2e/package.json',
                                  '/docs/..%2frender', '/docs/vendor/swagger-ui-bundle.js.gz', '/docs/node_modules'])
def test_nothing_else_is_served(stack, path):
    answer = requests.get(stack.url + path, timeout=10)
    assert answer.status_code in (400, 404) and list(answer.json()) == ['detail']


def test_the_page_has_one_address(stack):
    answer = requests.get(stack.url + '/docs/', allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers['Location']) == (308, '/docs')
