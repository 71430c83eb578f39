"""
The chat page in a real Chromium, before the real service. What the page's modules do by themselves is tested in tests/app.
"""
import glob
import json
import os
import re
import subprocess

import pytest
import redis
import requests
from selenium.webdriver import ActionChains, Keys

import machines
from browser import DESKTOP, PHONE, Browser
from service import TOP
from stack import directive, late, wait_for

APP = os.path.join(TOP, 'nginx', 'app')
AXE = os.path.join(TOP, 'tests', 'node_modules', 'axe-core', 'axe.min.js')
NOTICE = '**如遇紧急情况，请拨打 120。** 热线：[12356](tel:12356)'


@pytest.fixture(scope='module')
def browser():
    running = Browser()
    yield running
    running.close_all()


@pytest.fixture(scope='module')
def service(make_module_stack):
    return make_module_stack(APP_NOTICE=NOTICE, COZE_MAX_RETRIES='0')


@pytest.fixture
def page(browser, service):
    service.sim.reset()
    page = Page(browser, service)
    yield page
    page.check()


class Page:
    """The page as a visitor has it before them."""

    def __init__(self, browser, service):
        self.browser = browser
        self.service = service
        self.expected = ()  # complaints on the console
        browser.open_page(service.url + '/app/')
        browser.one('#composer textarea')

    def check(self):
        """Whatever a test does: no stranger was asked for anything, and the policy was never in the way."""
        self.browser.listen()
        strangers = [url for url in self.browser.requests if not url.startswith((self.service.url, 'data:', 'chrome:'))]
        complaints = [line for line in self.browser.complaints if not re.search('|'.join(self.expected) or '^$', line)]
        assert strangers == []
        assert complaints == []

    @property
    def composer(self):
        return self.browser.one('#composer textarea')

    def write(self, text):
        """Into the composer, whatever the text: keys cannot type everything."""
        self.browser.execute_script(
            "const area = document.querySelector('#composer textarea'); area.focus(); area.value = arguments[0];"
            "area.dispatchEvent(new Event('input', { bubbles: true }))", text)

    def send(self, text, **sim):
        self.write(directive(text, **sim) if sim else text)
        self.composer.send_keys(Keys.ENTER)

    def say(self, text, **sim):
        """Sends, and waits for the whole answer."""
        before = len(self.answers())
        self.send(text, **sim)
        wait_for(lambda: len(self.answers()) == before + 1 and self.is_idle(), 20, 'the answer')
        return self.answers()[-1]

    def is_idle(self):
        return self.browser.js("!document.querySelector('.reply[aria-busy=true]')")

    def answers(self):
        return self.browser.js("[...document.querySelectorAll('.reply .answer')].map((answer) => answer.innerText)")

    def questions(self):
        return self.browser.js("[...document.querySelectorAll('.bubble')].map((bubble) => bubble.textContent)")

    def titles(self):
        return self.browser.js("[...document.querySelectorAll('.conversations bdi')].map((title) => title.textContent)")

    def failure(self, kind):
        return self.browser.one('.failure[data-kind=%s]' % kind, 20)

    def choose(self, item):
        """Of the menu of the conversation that is shown."""
        self.browser.one('#actions').click()
        self.item(item)

    def item(self, name):
        [entry] = [entry for entry in self.browser.all('.menu .item') if entry.text == name]
        entry.click()

    def confirm(self):
        self.browser.one('dialog [type=submit]').click()
        wait_for(lambda: not self.browser.all('dialog'))

    def reload(self):
        self.browser.refresh()
        self.composer

    def stored(self):
        return self.browser.js("Object.values(localStorage).concat(Object.values(sessionStorage)).join('\\n')")


def chat_status(service):
    return [chat['status'] for chat in service.sim.chats()]


# --- how it is served -------------------------------------------------------------------------------------------------


def test_the_modules_pass_their_own_tests():
    done = subprocess.run(['node', '--test', os.path.join(TOP, 'tests', 'app')], stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r'^# pass (\d+)$', done.stdout, re.M)[1]) > 30


def test_every_file_is_served_with_its_type_and_asked_about_before_it_is_used_again(service):
    types = {'.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8',
             '.svg': 'image/svg+xml; charset=utf-8'}
    for name in os.listdir(APP) + ['vendor/markdown-it.js']:
        answer = requests.get('%s/app/%s' % (service.url, name), timeout=10)
        assert (answer.status_code, answer.headers['Content-Type']) == (200, types[os.path.splitext(name)[1]]), name
        assert answer.headers['Cache-Control'] == 'no-cache', name
        again = requests.get(answer.url, headers={'If-None-Match': answer.headers['ETag']}, timeout=10)
        assert (again.status_code, again.headers['Cache-Control'], again.content) == (304, 'no-cache', b''), name


def test_the_policy_lets_nothing_in_but_the_pages_own_files(service):
    policy = requests.get(service.url + '/app/', timeout=10).headers['Content-Security-Policy']
    rules = dict(rule.strip().split(' ', 1) for rule in policy.split(';'))
    assert rules['default-src'] == rules['base-uri'] == rules['form-action'] == rules['frame-ancestors'] == "'none'"
    assert rules['script-src'] == rules['style-src'] == rules['connect-src'] == rules['img-src'] == "'self'"
    assert rules['require-trusted-types-for'] == "'script'" and rules['trusted-types'] == "'none'"
    with open(os.path.join(APP, 'index.html'), encoding='utf-8') as file:
        html = file.read()
    assert not re.search(r'<style|\bstyle=|\bon[a-z]+=|<script(?![^>]*\bsrc=)', html)


def test_all_modules_are_asked_for_at_once():
    """And none is forgotten, or one after the other would be discovered."""
    with open(os.path.join(APP, 'index.html'), encoding='utf-8') as file:
        preloaded = set(re.findall(r'rel="modulepreload" href="([^"]+)"', file.read()))
    modules = {os.path.basename(path) for path in glob.glob(APP + '/*.js')}
    assert preloaded == modules - {'main.js', 'theme.js'} | {'vendor/markdown-it.js'}


def test_app_without_its_slash_is_found_and_other_methods_are_refused(service):
    answer = requests.get(service.url + '/app', allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers['Location']) == (308, '/app/')
    assert requests.post(service.url + '/app/', timeout=10).status_code == 405
    for path in ('/app/nothing', '/app/../render', '/app/%2e%2e/render', '/app/vendor/', '/app/vendor/markdown-it.js.map'):
        answer = requests.get(service.url + path, timeout=10)
        assert answer.status_code == 404 and 'detail' in answer.json(), path


@pytest.mark.parametrize('notice', [
    '', 'plain', '"; } return 200 x; #', "it's $host and ${uri}", 'back\\slash \\n \\u0041 @LISTEN@ @NOTHING@', '<b>&amp;</b>', '你好 😀 \u2028 العربية', '%s %d {x}',
    'x' * 3000])
def test_a_notice_of_any_text_reaches_the_page_as_it_is(notice):
    env = dict(os.environ, RUN_DIR='/tmp', WORKERS='1', SERVER_HOST='127.0.0.1', SERVER_PORT='1', MAX_REQUEST_SIZE='1', ALLOWED_ORIGINS='*',
               APP_NOTICE=notice)
    done = subprocess.run([os.path.join(TOP, 'nginx', 'render')], env=env, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0
    [body] = re.findall(r"return 200 '(\{\"notice\".*)';$", done.stdout, re.M)
    assert json.loads(body) == {'notice': notice}
    # nginx leaves alone what is neither quote, nor dollar, nor one of these escapes.
    assert not re.search(r"['$]|\\[\"'\\trn]", body)


def test_a_notice_that_does_not_fit_is_refused():
    for notice in ('x' * 5000, '*' * 1000, 'a\nb'):
        env = dict(os.environ, RUN_DIR='/tmp', WORKERS='1', SERVER_HOST='127.0.0.1', SERVER_PORT='1', MAX_REQUEST_SIZE='1',
                   ALLOWED_ORIGINS='*', APP_NOTICE=notice)
        done = subprocess.run([os.path.join(TOP, 'nginx', 'render')], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=60)
        assert done.returncode == 1 and 'APP_NOTICE' in done.stderr and done.stdout == ''


# --- talking ----------------------------------------------------------------------------------------------------------


def test_words_are_shown_as_they_come(page):
    page.browser.execute_script("""
        window.seen = [];
        window.waited = false;
        new MutationObserver(() => {
            window.waited ||= document.querySelector('.dots') !== null;
            const text = document.querySelector('.reply .answer')?.innerText ?? '';
            if (text.length > (window.seen.at(-1)?.[1] ?? 0)) window.seen.push([performance.now(), text.length]);
        }).observe(document.getElementById('messages'), { childList: true, subtree: true, characterData: true });""")
    page.send('慢慢说', gap_ms=200, chunks=12, answer='一步一步慢慢来，先深呼吸，再想想今天发生了什么。')
    wait_for(lambda: page.answers() == ['一步一步慢慢来，先深呼吸，再想想今天发生了什么。'], 20)
    assert page.browser.js('window.waited'), 'no dots before the first word'
    seen = page.browser.js('window.seen')
    assert len(seen) >= 5
    assert seen[-1][0] - seen[0][0] > 700
    assert page.browser.one('.reply .actions time').is_displayed()


@pytest.mark.parametrize('how', ['button', 'escape'])
def test_stopping_cancels_at_coze_and_keeps_what_was_said(page, how):
    page.send('说很久', gap_ms=100, chunks=200, answer='长' * 400)
    wait_for(lambda: page.answers() and len(page.answers()[0]) > 3)
    if how == 'button':
        page.browser.one('.send.stop').click()
    else:
        page.composer.send_keys(Keys.ESCAPE)
    wait_for(lambda: chat_status(page.service) == ['canceled'], 2 + late(), 'the cancel')
    assert '已停止回答' in page.browser.one('.reply .after').text
    said = page.answers()[0]
    assert 3 < len(said) < 400
    page.reload()
    assert page.answers() == [said]
    assert '第 1 轮' in page.say('还在吗')


def test_an_answer_that_was_stopped_can_be_asked_for_again(page):
    page.send('再来一次', first_ms=20_000)
    page.browser.one('.dots')
    page.browser.one('.send.stop').click()
    page.service.sim.queue(answer='好的')
    assert page.browser.switch_to.active_element == page.composer
    [again] = [button for button in page.browser.all('.actions button') if button.text == '重新提问']
    again.click()
    wait_for(lambda: page.answers() == ['好的'])
    assert len(page.questions()) == 1


def test_a_conversation_goes_on_after_a_reload(page):
    assert '第 1 轮' in page.say('我叫小明')
    page.reload()
    assert page.questions() == ['我叫小明']
    assert '第 2 轮，上一轮您说：“我叫小明”' in page.say('我叫什么')
    assert page.titles() == ['我叫小明']


def test_a_reload_in_the_middle_of_an_answer_keeps_what_came(page):
    page.send('说很久', gap_ms=100, chunks=200, answer='长' * 400)
    wait_for(lambda: page.answers() and len(page.answers()[0]) > 3)
    page.reload()
    assert 3 < len(page.answers()[0]) < 400
    assert '已停止回答' in page.browser.one('.reply .after').text
    wait_for(lambda: chat_status(page.service) == ['canceled'], 5, 'the cancel')


def test_a_session_that_the_service_has_forgotten_goes_on_with_its_conversation(page):
    page.expected = ('favicon.ico',)  # of a page that has no icon of its own, below
    page.say('记住我')
    [conversation] = {chat['conversation_id'] for chat in page.service.sim.chats()}
    redis.Redis(unix_socket_path=os.path.join(page.service.run_dir, 'redis.sock')).flushall()
    page.browser.get('about:blank')
    page.browser.get(page.service.url + '/app/mark.svg')
    page.browser.execute_script("""
        for (const [key, raw] of Object.entries(localStorage)) {
            if (!key.startsWith('coze-chat:conversation:')) continue;
            localStorage[key] = JSON.stringify({ ...JSON.parse(raw), updated: Date.now() - 26 * 3600 * 1000 });
        }""")
    page.browser.get(page.service.url + '/app/')
    page.composer
    assert '第 2 轮，上一轮您说：“记住我”' in page.say('我回来了')
    assert {chat['conversation_id'] for chat in page.service.sim.chats()} == {conversation}


def test_visitors_are_different_users_to_coze(page):
    page.say('你好')
    first = page.service.sim.log('/v3/chat')[-1]['body']['user_id']
    page.browser.open_page(page.service.url + '/app/')
    page.say('你好')
    second = page.service.sim.log('/v3/chat')[-1]['body']['user_id']
    assert first != second and re.fullmatch('web_[0-9a-f]{32}', first)


# --- conversations ----------------------------------------------------------------------------------------------------


def test_several_conversations_know_nothing_of_each_other(page):
    page.say('第一个话题')
    page.browser.one('.new').click()
    assert page.questions() == [] and page.browser.one('#empty')
    assert '第 1 轮' in page.say('第二个话题')
    assert page.titles() == ['第二个话题', '第一个话题']
    page.browser.all('.conversations .open')[1].click()
    assert page.questions() == ['第一个话题']
    assert '上一轮您说：“第一个话题”' in page.say('继续')
    assert page.titles() == ['第一个话题', '第二个话题']
    assert len({chat['conversation_id'] for chat in page.service.sim.chats()}) == 2


def test_one_conversation_answers_while_another_is_shown(page):
    page.service.sim.queue(gap_ms=500, chunks=12, answer='这是一个很长很长的回答，慢慢地来。')
    page.send('慢慢回答')
    wait_for(lambda: page.answers() and page.answers()[0])
    page.browser.one('.new').click()
    assert page.browser.one('.pulse')
    assert '第 1 轮' in page.say('另一个')
    page.browser.all('.conversations .open')[page.titles().index('慢慢回答')].click()
    wait_for(lambda: page.answers() == ['这是一个很长很长的回答，慢慢地来。'], 20)


def test_renaming_lasts(page):
    page.say('原来的名字')
    page.choose('重命名')
    field = page.browser.one('dialog input')
    assert field.get_attribute('value') == '原来的名字'
    field.send_keys(Keys.CONTROL, 'a')
    field.send_keys('睡眠 & <b>压力</b>', Keys.ENTER)
    wait_for(lambda: page.titles() == ['睡眠 & <b>压力</b>'])
    page.reload()
    assert page.titles() == ['睡眠 & <b>压力</b>']
    assert page.browser.title == '睡眠 & <b>压力</b> · 聊聊'
    page.say('再说一句')
    assert page.titles() == ['睡眠 & <b>压力</b>']


def test_clearing_forgets_here_and_at_the_service(page):
    page.say('不想留下的话')
    page.choose('清空对话')
    page.confirm()
    wait_for(lambda: page.questions() == [])
    assert '不想留下的话' not in page.stored()
    assert '第 1 轮' in page.say('重新开始')
    page.reload()
    assert page.questions() == ['重新开始']


def test_clearing_while_an_answer_comes(page):
    page.send('说很久', gap_ms=100, chunks=200, answer='长' * 400)
    wait_for(lambda: page.answers() and len(page.answers()[0]) > 3)
    page.choose('清空对话')
    page.confirm()
    wait_for(lambda: page.questions() == [])
    wait_for(lambda: chat_status(page.service) == ['canceled'], 5)
    assert '第 1 轮' in page.say('重新开始')


def test_deleting_and_thinking_better_of_it(page):
    page.say('一')
    page.browser.one('.new').click()
    page.say('二')
    page.choose('删除对话')
    page.browser.one('dialog .quiet').click()
    assert page.titles() == ['二', '一']
    page.choose('删除对话')
    page.confirm()
    wait_for(lambda: page.titles() == ['一'])
    page.reload()
    assert page.titles() == ['一']
    assert '二' not in page.stored()


def test_deleting_everything(page):
    page.say('一')
    page.browser.one('.choices .row > :last-child').click()
    page.item('删除全部对话')
    page.confirm()
    wait_for(lambda: page.titles() == [] and page.browser.one('#empty'))
    assert 'coze-chat:conversation' not in page.browser.js("Object.keys(localStorage).join()")


def test_two_tabs_at_once(page):
    page.say('从第一个标签页')
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window('tab')
    page.browser.get(page.service.url + '/app/')
    page.composer
    wait_for(lambda: page.questions() == ['从第一个标签页'])
    assert '第 2 轮' in page.say('从第二个标签页')
    second = page.browser.current_window_handle
    page.browser.switch_to.window(first)
    wait_for(lambda: page.questions() == ['从第一个标签页', '从第二个标签页'] and '第 2 轮' in page.answers()[1])
    page.choose('删除对话')
    page.confirm()
    page.browser.switch_to.window(second)
    wait_for(lambda: page.questions() == [] and page.titles() == [])


# --- when something goes wrong ----------------------------------------------------------------------------------------


def test_the_server_goes_away_and_comes_back(browser, make_stack):
    stack = make_stack()
    page = Page(browser, stack)
    page.expected = ('ERR_CONNECTION_REFUSED',)
    page.say('在吗')
    stack.down()
    page.send('还在吗')
    failure = page.failure('network')
    assert '连接不上服务' in failure.text
    stack.up()
    wait_for(lambda: '连接已恢复' in failure.text, 30)
    page.browser.one('.failure .primary').click()
    wait_for(lambda: len(page.answers()) == 2 and '第 2 轮，上一轮您说：“在吗”' in page.answers()[1], 20)
    assert not browser.all('.failure')
    page.check()


def test_a_connection_that_breaks_in_the_middle(page):
    page.say('说到一半', fault='cut', cut_after=3, gap_ms=30)
    assert '回答中断了' in page.failure('cut').text
    assert page.answers()[0] != ''
    page.service.sim.queue(answer='这次完整了')
    page.browser.one('.failure .primary').click()
    wait_for(lambda: page.answers() == ['这次完整了'])


def test_an_overloaded_service_says_when_to_try_again(page):
    page.expected = ('status of 503',)
    page.service.sim.default(http_status=503, retry_after=6)
    page.send('在吗')
    failure = page.failure('unavailable')
    button = failure.find_element('css selector', 'button')
    assert not button.is_enabled() and re.fullmatch(r'[1-6] 秒后可重试', button.text)
    page.service.sim.reset()
    wait_for(button.is_enabled, 12)
    assert button.text == '重试'
    button.click()
    wait_for(lambda: page.is_idle() and '收到' in page.answers()[0])
    assert len(page.questions()) == 1


def test_a_busy_session_says_to_wait(browser, make_stack):
    stack = make_stack(SESSION_WAIT_SECONDS='0.2')
    page = Page(browser, stack)
    page.expected = ('status of 409',)
    page.say('第一句')
    session = page.browser.js("JSON.parse(Object.entries(localStorage).find(([key]) => key.startsWith('coze-chat:conversation'))[1]).session")
    with stack.stream(directive('很久', gap_ms=300, chunks=100, answer='长' * 200), session_id=session) as other:
        body = other.iter_content(1)
        next(body)
        page.send('第二句')
        assert '上一条消息还在处理' in page.failure('busy').text
    page.check()


def test_a_client_that_is_too_fast_is_told_kindly(browser, make_stack):
    stack = make_stack(CLIENT_REQUESTS_PER_SECOND='1', CLIENT_BURST='0', CLIENT_EXEMPT_NETWORKS='none')
    page = Page(browser, stack)  # its own files do not count
    page.expected = ('status of 429',)
    for n in range(20):  # each takes a moment: on a busy machine more than the second that is asked for
        requests.get(stack.url + '/', timeout=10)  # counts, too
        page.send('第 %d 句' % n)
        wait_for(page.is_idle)
        if page.browser.all('.failure'):
            break
    failure = page.failure('too_fast')
    assert '发送得有点快' in failure.text
    assert '重试' in failure.find_element('css selector', 'button').text
    page.check()


def test_a_message_that_is_too_long_can_be_shortened(browser, make_stack):
    stack = make_stack(MAX_REQUEST_SIZE='20000')
    page = Page(browser, stack)
    page.expected = ('status of 413', 'ERR_CONNECTION_RESET')
    page.send('长' * 10000)
    failure = page.failure('too_long')
    [edit] = failure.find_elements('css selector', 'button')
    assert edit.text == '修改消息'
    edit.click()
    assert page.composer.get_attribute('value') == '长' * 10000
    assert page.questions() == []
    assert page.say('短') != ''
    page.check()


def test_the_services_own_faults_name_the_request(page):
    page.expected = ('status of 500',)
    page.service.sim.queue(code=4100, fault='json_error')
    page.send('在吗')
    text = page.failure('service').text
    assert '不是你的错' in text and re.search('请求编号：[0-9a-f]{32}', text)


def test_offline_is_said_and_taken_back(page):
    page.expected = ('ERR_INTERNET_DISCONNECTED',)
    page.browser.offline(True)
    assert page.browser.one('#banner').text == '当前没有网络连接'
    page.send('在吗')
    page.failure('network')
    page.browser.offline(False)
    wait_for(lambda: not page.browser.find_element('id', 'banner').is_displayed())


@pytest.mark.skipif(not machines.possible(), reason='needs root and network namespaces')
def test_networks_may_come_and_go_beside_the_browser(page):
    """As those of other tests do: a Chromium that heard of it would give up the requests that wait for a connection."""
    count = 8  # it makes six connections
    page.browser.execute_script("""
        window.statuses = [];
        for (let i = 0; i < arguments[0]; i++)
            fetch('/chat', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: arguments[1] })
                .then((answer) => statuses.push(answer.status), (error) => statuses.push(String(error)));
        """, count, json.dumps({'message': directive('慢', first_ms=2000)}))
    wait_for(lambda: len(page.service.sim.chats()) >= 6, what='all connections being in use')
    network = machines.Network()
    try:
        network.add()
    finally:
        network.close()
    wait_for(lambda: len(page.browser.js('statuses')) == count, 30, 'all answers')
    assert page.browser.js('statuses') == [200] * count


def test_an_api_key_is_asked_for_and_forgotten_with_the_tab(browser, make_stack):
    stack = make_stack(API_KEYS='right-key,other-key')
    page = Page(browser, stack)
    page.expected = ('status of 401',)
    page.send('你好')
    field = browser.one('dialog input[type=password]')
    assert field == browser.switch_to.active_element
    field.send_keys('wrong-key', Keys.ENTER)
    wait_for(lambda: browser.one('dialog .warning').text == '这个密钥不对，请再检查一下。')
    browser.one('dialog input[type=password]').send_keys('right-key', Keys.ENTER)
    wait_for(lambda: page.answers() and '第 1 轮' in page.answers()[0])
    assert len(page.questions()) == 1
    assert 'right-key' not in browser.js("Object.values(localStorage).join()")
    page.reload()
    assert '第 2 轮' in page.say('还认识我吗')
    browser.one('.choices .row > :last-child').click()
    page.item('移除访问密钥')
    page.send('现在呢')
    browser.one('dialog input[type=checkbox]').click()
    browser.one('dialog input[type=password]').send_keys('other-key', Keys.ENTER)
    wait_for(lambda: page.is_idle() and len(page.answers()) == 3 and '第 3 轮' in page.answers()[2])
    assert 'other-key' in browser.js("Object.values(localStorage).join()")
    page.check()


def test_a_browser_that_keeps_nothing(page):
    script = page.browser.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument', {'source': """
        for (const name of ['localStorage', 'sessionStorage']) {
            Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });
        }"""})
    try:
        page.reload()
        assert '浏览器不允许保存数据' in page.browser.one('#banner').text
        assert '第 1 轮' in page.say('你好')
        assert '第 2 轮' in page.say('还在吗')
        page.browser.one('.language').click()
        assert page.browser.one('#banner').text.startswith('The browser does not')
    finally:
        page.browser.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument', script)


def test_without_markdown_it_the_text_is_shown_as_it_is(page):
    page.expected = ('vendor/markdown-it.js',)
    page.browser.execute_cdp_cmd('Network.enable', {})
    page.browser.execute_cdp_cmd('Network.setBlockedURLs', {'urls': ['*vendor*']})
    try:
        page.reload()
        text = '**不加粗** <b>\n\n- 一\n- 二'
        assert page.say('你好', answer=text, gap_ms=20) == text
        assert not page.browser.all('.answer strong, .answer li')
        assert NOTICE in page.browser.one('#notice').text
    finally:
        page.browser.execute_cdp_cmd('Network.setBlockedURLs', {'urls': []})


# --- what is shown ----------------------------------------------------------------------------------------------------

EVIL = '''<img src=x onerror="window.pwned=1"><script>window.pwned=2</script>

<svg onload=pwned=3></svg> <a href="javascript:pwned=4">a</a> [b](javascript:pwned=5) [c](data:text/html,x) [d](/session/x/clear)

![图](https://third.example/spy.png) [ok](https://a.example/?q="x) <iframe src="//third.example"></iframe> &lt;i&gt;

`<img src=x onerror=pwned=6>`

```<img src=x onerror=pwned=7>
<style>body{display:none}</style>
```
'''


def test_html_is_text_and_images_are_links(page):
    page.say('<img src=x onerror=pwned=8> **不加粗**', answer=EVIL, gap_ms=5, chunks=80)
    for selector in ('img', 'iframe', '#messages script', '#messages style', '#messages svg[onload]', '#messages [onerror]'):
        assert page.browser.all(selector) == [], selector
    assert page.browser.js('window.pwned === undefined')
    [answer] = page.answers()
    for text in ('<img src=x onerror="window.pwned=1">', '<script>window.pwned=2</script>', '<svg onload=pwned=3></svg>', '<i>'):
        assert text in answer
    assert page.questions()[0].startswith('<img src=x onerror=pwned=8> **不加粗**')
    assert page.titles()[0].startswith('<img src=x')
    links = {link.text: link for link in page.browser.all('.answer a')}
    assert sorted(links) == ['ok', '图片：图']
    for link in links.values():
        assert link.get_attribute('href').startswith('https://')
        assert link.get_attribute('rel') == 'noopener noreferrer' and link.get_attribute('target') == '_blank'


def test_growing_text_ends_up_the_same_as_text_that_was_there(page):
    texts = [EVIL, '# a\n\n1. x\n\n2. y\n\n   more\n3. z\n\ntext\n***\n> q\nlazy\n\n> r\n', 'a\n\n- b\n  - c\n\n    d\n- e\n\n\n    code\n\nf\n===\ng',
             '|a|b|\n|-|:-:|\n|1|2|\n|3\n\nafter\n```js\nx\n\n\ny\n```\n**z**', '一\r\n\r\n二\r\n- 三\r\n\r\n四', 'x\n\n\n\n', '```\nnever closed\n\n# x']
    different = page.browser.execute_async_script("""
        const [texts, done] = arguments;
        import('/app/markdown.js').then(async ({ Answer, loadMarkdown }) => {
            await loadMarkdown();
            const words = { code: 'code', copyCode: 'copy', table: 'table', image: (text) => text };
            const flat = (root) => [...root.children].map((blocks) => blocks.innerHTML).join('');
            done(texts.filter((text) => [1, 2, 7].some((step) => {
                const whole = document.createElement('div');
                new Answer(whole, words).show(text, true);
                const root = document.createElement('div');
                const answer = new Answer(root, words);
                for (let i = 0; i < text.length; i += step) answer.show(text.slice(0, i), false);
                answer.show(text, true);
                return flat(root) !== flat(whole);
            })));
        });""", texts)
    assert different == []


def test_what_is_settled_is_not_drawn_again(page):
    page.send('两段', deltas=['第一段\n\n', '第二', '段', '还没', '说完'], gap_ms=250)
    wait_for(lambda: page.answers() and '第二' in page.answers()[0])
    page.browser.execute_script("window.first = document.querySelector('.answer p')")
    wait_for(page.is_idle, 10)
    assert page.browser.js("window.first.isConnected && window.first.textContent === '第一段'")


def test_the_notice_is_always_there(page):
    notice = page.browser.one('#notice')
    assert notice.text == '如遇紧急情况，请拨打 120。 热线：12356'
    assert notice.find_element('css selector', 'strong').text == '如遇紧急情况，请拨打 120。'
    assert notice.find_element('css selector', 'a').get_attribute('href') == 'tel:12356'
    page.say('你好')
    assert notice.is_displayed()


def test_without_a_notice_there_is_none(browser, make_stack):
    stack = make_stack()
    page = Page(browser, stack)
    assert not browser.find_element('id', 'notice').is_displayed()
    page.check()


def test_copying_an_answer_and_its_code(page):
    page.browser.execute_cdp_cmd('Browser.grantPermissions', {'permissions': ['clipboardReadWrite', 'clipboardSanitizedWrite']})
    text = '试试 **这个**：\n\n```python\nprint("你好")\n```'
    page.say('代码', answer=text)

    def clipboard():
        return page.browser.execute_async_script('navigator.clipboard.readText().then(arguments[0])')
    page.browser.one('.actions .icon-button').click()
    wait_for(lambda: page.browser.one('#told').text == '已复制')
    assert clipboard() == text
    page.browser.one('[data-copy]').click()
    wait_for(lambda: clipboard() == 'print("你好")')


def test_a_reader_who_has_scrolled_up_is_left_in_peace(page):
    page.send('长文', answer='\n\n'.join('第 %d 段，内容不多。' % n for n in range(60)), gap_ms=30, chunks=100)
    log = "document.getElementById('log')"
    rest = log + '.scrollHeight - ' + log + '.clientHeight - ' + log + '.scrollTop'
    wait_for(lambda: page.browser.js(log + '.scrollTop') > 100)
    assert page.browser.js(rest) < 5, 'the end is followed'
    page.browser.execute_script(log + '.scrollTop = 20')
    wait_for(lambda: page.browser.js("!document.getElementById('latest').hidden"))
    wait_for(page.is_idle, 10)
    assert page.browser.js(log + '.scrollTop') == 20
    page.browser.one('#latest').click()
    wait_for(lambda: page.browser.js(rest) < 5)
    assert not page.browser.find_element('id', 'latest').is_displayed()


def test_a_huge_answer_does_not_freeze_the_page(page):
    page.browser.execute_script("""
        window.longest = 0;
        let last = performance.now();
        setInterval(() => { window.longest = Math.max(window.longest, performance.now() - last); last = performance.now(); }, 20);""")
    for answers in range(1, 5):  # a machine that is busy freezes it now and then, a page that freezes by itself does so each time
        page.browser.execute_script('window.longest = 0')
        page.send('很长', answer_bytes=3_000_000, chunks=600)
        wait_for(lambda: page.is_idle() and len(page.answers()) == answers, 60)
        assert page.browser.js("[...document.querySelectorAll('.answer')].at(-1).textContent.length") > 1_500_000
        if page.browser.js('window.longest') < 2000:
            break
    else:
        raise AssertionError('it was frozen for %d ms' % page.browser.js('window.longest'))
    page.reload()
    assert '只保存了开头部分' in page.browser.one('.reply .after').text


def test_long_words_and_other_directions_stay_in_their_place(page):
    page.browser.size(PHONE)
    page.say('x' * 600, answer='y' * 600 + '\n\nمرحبا بالعالم (abc) 123\n\n|' + 'z' * 300 + '|b|\n|-|-|\n|1|2|')
    width = page.browser.js("document.getElementById('log').scrollWidth - document.getElementById('log').clientWidth")
    assert width == 0
    [_, arabic] = page.browser.all('.answer p')
    assert page.browser.js("getComputedStyle(arguments[0]).direction", arabic) == 'rtl'


# --- for everybody ----------------------------------------------------------------------------------------------------


def test_the_enter_that_ends_a_composition_does_not_send(page):
    page.composer.click()
    page.browser.execute_cdp_cmd('Input.imeSetComposition', {'text': 'nihao', 'selectionStart': 5, 'selectionEnd': 5})
    for kind in ('rawKeyDown', 'keyUp'):
        page.browser.execute_cdp_cmd('Input.dispatchKeyEvent', {'type': kind, 'key': 'Enter', 'code': 'Enter', 'windowsVirtualKeyCode': 229})
    # Safari's order: the composition has ended, and then comes the key.
    page.browser.execute_cdp_cmd('Input.insertText', {'text': '你好'})
    page.browser.execute_script("""
        const key = new KeyboardEvent('keydown', { key: 'Enter', keyCode: 229, bubbles: true, cancelable: true });
        document.querySelector('#composer textarea').dispatchEvent(key);""")
    assert page.composer.get_attribute('value') == '你好'
    assert page.questions() == []
    page.composer.send_keys(Keys.ENTER)
    wait_for(lambda: page.questions() == ['你好'])


def test_keys(page):
    page.composer.send_keys('一', Keys.SHIFT, Keys.ENTER, Keys.NULL, '二', Keys.ENTER)
    wait_for(lambda: page.questions() == ['一\n二'])
    assert page.composer.get_attribute('value') == '' and page.composer == page.browser.switch_to.active_element
    wait_for(page.is_idle)
    page.composer.send_keys('   ', Keys.ENTER)
    assert page.questions() == ['一\n二']
    page.browser.one('#actions').click()
    ActionChains(page.browser).send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP).perform()
    assert page.browser.switch_to.active_element.text == '删除对话'
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    assert not page.browser.all('.menu') and page.browser.switch_to.active_element.get_attribute('id') == 'actions'


def test_a_draft_waits_where_it_was_written(page):
    page.say('第一个')
    page.write('还没写完')
    page.browser.one('.new').click()
    assert page.composer.get_attribute('value') == ''
    page.browser.one('.conversations .open').click()
    assert page.composer.get_attribute('value') == '还没写完'
    page.reload()
    assert page.composer.get_attribute('value') == '还没写完'


def test_a_screen_reader_hears_paragraphs_not_tokens(page):
    page.browser.execute_script("""
        window.spoken = [];
        new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach((node) => window.spoken.push(node.textContent))))
            .observe(document.getElementById('spoken'), { childList: true });""")
    page.say('三段', answer='第一段的话，有点长。\n\n第二段的话，也有点长。\n\n第三段。', chunks=25, gap_ms=20)
    spoken = page.browser.js('window.spoken')
    assert spoken == ['正在思考', '第一段的话，有点长。', '第二段的话，也有点长。', '第三段。', '回答完毕。']
    assert page.browser.one('.reply').get_attribute('aria-busy') == 'false'


def test_language_and_theme_are_the_browsers_until_chosen(page):
    page.browser.prefer(color_scheme='dark')
    page.reload()
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.browser.js(paper) == 'rgb(20, 25, 24)'
    page.browser.all('.segments input')[1].click()
    assert page.browser.js(paper) == 'rgb(247, 245, 240)'
    page.reload()
    assert page.browser.js(paper) == 'rgb(247, 245, 240)'
    assert page.browser.js('document.documentElement.lang') == 'zh-CN'
    page.say('中文', answer='好')
    page.browser.one('.language').click()
    assert page.browser.js('document.documentElement.lang') == 'en'
    assert page.composer.get_attribute('placeholder').startswith('Write')
    assert page.questions()[0].startswith('中文')
    page.reload()
    assert page.browser.one('.new').text == 'New conversation'
    page.browser.all('.segments input')[0].click()
    assert page.browser.js(paper) == 'rgb(20, 25, 24)'


def test_english_browsers_get_english(service):
    browser = Browser(language='en-US')
    try:
        page = Page(browser, service)
        assert browser.one('#greeting').text == 'Hello. What is on your mind?'
        page.check()
    finally:
        browser.close_all()


def test_both_languages_have_every_word():
    done = subprocess.run(['node', '--input-type=module', '-e', """
        const { all } = await import(process.argv[1]);
        const keys = (words, at = '') => Object.entries(words).flatMap(([name, word]) =>
            [at + name + ':' + typeof word, ...(typeof word === 'object' ? keys(word, at + name + '.') : [])]).sort();
        console.log(JSON.stringify([keys(all.zh), keys(all.en)]));""", os.path.join(APP, 'texts.js')], stdout=subprocess.PIPE, text=True, timeout=60)
    zh, en = json.loads(done.stdout)
    assert zh == en


def test_a_phone_has_its_list_in_a_drawer(page):
    page.say('话题')
    page.browser.size(PHONE)
    wait_for(lambda: not page.browser.find_element('css selector', '.conversations').is_displayed())
    page.browser.one('#open-list').click()
    wait_for(lambda: page.browser.one('.conversations .open'))
    assert page.browser.js("document.getElementById('main').inert")
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    assert not page.browser.js("document.getElementById('main').inert")
    assert page.browser.switch_to.active_element.get_attribute('id') == 'open-list'


def test_nothing_moves_for_those_who_want_it_so(page):
    page.browser.prefer(reduced_motion='reduce')
    page.send('慢', first_ms=20_000)
    assert page.browser.js("getComputedStyle(arguments[0]).animationName", page.browser.one('.dots i')) == 'none'


MARKDOWN = '''### 标题

一段话，**重点**、*强调*和 `code`，[链接](https://a.example)。

1. 一
2. 二

> 引用

| 甲 | 乙 |
|---|--:|
| 1 | 2 |

```python
print("你好")
```
'''


def violations(browser):
    with open(AXE, encoding='utf-8') as file:
        browser.execute_script(file.read())
    found = browser.execute_async_script("axe.run(document).then(arguments[0])")
    assert len(found['passes']) > 15
    return [(rule['id'], [node['html'] + ' ' + node.get('failureSummary', '') for node in rule['nodes']]) for rule in found['violations']]


@pytest.mark.parametrize('size', [DESKTOP, PHONE], ids=['desktop', 'phone'])
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_axe_finds_nothing(page, theme, size):
    page.expected = ('status of 503',)
    browser = page.browser
    browser.prefer(color_scheme=theme, reduced_motion='reduce')
    browser.size(size)
    page.reload()
    seen = {'empty': violations(browser)}
    page.say('你好', answer=MARKDOWN)
    seen['conversation'] = violations(browser)
    page.service.sim.default(http_status=503, retry_after=600)
    page.send('忙吗')
    page.failure('unavailable')
    seen['failure'] = violations(browser)
    page.service.sim.reset()
    page.send('等等', first_ms=20_000)
    browser.one('.dots')
    seen['waiting'] = violations(browser)
    browser.one('.send.stop').click()
    browser.one('#actions').click()
    seen['menu'] = violations(browser)
    page.item('重命名')
    seen['dialog'] = violations(browser)
    browser.one('dialog .quiet').click()
    if size == PHONE:
        browser.one('#open-list').click()
        seen['drawer'] = violations(browser)
    assert seen == dict.fromkeys(seen, [])
