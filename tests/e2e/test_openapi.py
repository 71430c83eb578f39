"""
The API document is true: public tools find it sound, what it shows by example works, what its schemas refuse is refused,
and a proxy that holds every request and answer against it (Prism) finds no mismatch. That every answer of all the other
tests fits is contract.py's business.
"""
import copy
import json
import os
import re
import subprocess

import jsonschema
import pytest
import requests

import contract
from contract import operations, print_document
from service import TOP, free_port
from stack import wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(TOP, 'tests', 'node_modules', '.bin')


@pytest.fixture(scope='module')
def document():
    return print_document()


def write(document, path):
    path.write_text(json.dumps(document, ensure_ascii=False))
    return str(path)


# ---- the document ----

def lint(document, path):
    done = subprocess.run(['node', os.path.join(HERE, 'lint_openapi.mjs'), write(document, path)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize('settings', [{}, {'API_KEYS': 'k'}, {'ADMIN_API_KEYS': 'a'}, {'API_KEYS': 'k', 'ADMIN_API_KEYS': 'a'}],
                         ids=['open', 'keys', 'admin keys', 'both'])
def test_public_tools_find_it_sound(settings, tmp_path):
    assert lint(print_document(**settings), tmp_path / 'openapi.json') == []


def test_public_tools_would_find_something(document, tmp_path):
    broken = copy.deepcopy(document)
    del broken['paths']['/chat']['post']['operationId']
    broken['paths']['/chat']['post']['responses']['200']['content']['application/json']['schema']['$ref'] += 's'
    broken['info']['version'] = 1
    found = '\n'.join(lint(broken, tmp_path / 'openapi.json'))
    for rule in 'operation-operationId:', 'no-unresolved-refs:', 'struct:', 'schema:':
        assert rule in found, found


def test_it_is_served_as_it_is_printed(stack, document):
    answers = [requests.get(stack.url + '/openapi.json', headers={'Origin': 'https://example.com'}, timeout=10)
               for _ in range(4)]  # by both workers, the second time from memory
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers['Content-Type'] == 'application/json'
        assert answer.headers['Access-Control-Allow-Origin'] == '*'
        assert answer.json() == document
    assert len({answer.content for answer in answers}) == 1


def test_it_knows_every_route_of_the_readme(document):
    """And the README every route of its own; pages are nginx' files, and in neither way JSON."""
    with open(os.path.join(TOP, 'README.md'), encoding='utf-8') as file:
        rows = re.findall(r'^\| `(GET|POST) (/[^`?]*)[^`]*` \|', file.read(), re.M)
    told = {row for row in rows if not re.match(r'/(docs|app)\b', row[1])}
    assert told == {(method, path) for method, path, _ in operations(document)}


def test_every_route_exists(stack, document):
    for method, path, _ in operations(document):
        answer = requests.request(method, stack.url + re.sub(r'\{[^}]*\}', 'nobody', path), timeout=10)
        assert answer.status_code != 405 and '接口不存在' not in answer.text, (method, path)


def test_errors_of_nginx_say_what_is_documented(document):
    with open(os.path.join(TOP, 'nginx', 'errors.conf.in'), encoding='utf-8') as file:
        said = dict(re.findall(r"""(\d{3}) '(\{"detail":"[^']*"\})';""", text := file.read()))
    said['429'] = re.search(r"""default '(\{"detail":"请求过于频繁[^']*)';""", text)[1]
    responses = document['components']['responses']
    for status, name in {'429': 'TooManyRequests', '502': 'BadGateway', '504': 'GatewayTimeout', '400': 'OtherError'}.items():
        assert responses[name]['content']['application/json']['example'] == json.loads(said[status])


def test_limits_are_those_of_the_settings():
    description = print_document(MAX_REQUEST_SIZE='54321')['paths']['/chat']['post']['requestBody']['description']
    assert '54321' in description


def test_examples_fit_their_own_schemas(document):
    """Every example, of bodies, answers, errors, streams and values, fits the schema beside it."""
    known = contract.Contract(document)
    count = 0

    def look(part):
        nonlocal count
        if isinstance(part, list):
            for item in part:
                look(item)
        if not isinstance(part, dict):
            return
        if 'schema' in part:
            examples = [example['value'] for example in part.get('examples', {}).values()]
            examples += [part['example']] if 'example' in part else []
            for example in examples:
                known.validate(example, part['schema'])
                if 'contentSchema' in part['schema']:
                    known.check_events(example.encode(), part['schema']['contentSchema'])
                count += 1
        if isinstance(part.get('examples'), list):
            for example in part['examples']:
                known.validate(example, {name: value for name, value in part.items() if name != 'examples'})
                count += 1
        for item in part.values():
            look(item)

    look(known.document)
    assert count > 100


# ---- requests ----

def requests_of(document):
    """(operationId, method, target, body or None): each request that the document shows, in an order that makes sense."""
    order = ['chat', 'streamChat', 'getSessionInfo', 'bindSession', 'findSession', 'listSessions']
    found = []
    for method, path, operation in operations(document):
        target = path
        query = []
        for parameter in operation.get('parameters', []):
            if parameter['in'] == 'path':
                target = target.replace('{%s}' % parameter['name'], parameter['example'])
            else:
                query.append('%s=%s' % (parameter['name'], parameter['example']))
        target += '?' + '&'.join(query) if query else ''
        bodies = [None]
        if 'requestBody' in operation:
            bodies = [example['value']
                      for example in operation['requestBody']['content']['application/json']['examples'].values()]
        found += [(operation['operationId'], method, target, body) for body in bodies]
    return sorted(found, key=lambda one: order.index(one[0]) if one[0] in order else len(order))


def ask(base, method, target, body=None, **headers):
    return requests.request(method, base + target, json=body, headers=headers, timeout=30)


def test_examples_work_as_they_are(stack, document):
    asked = requests_of(document)
    assert len(asked) == len(operations(document)) + 2, 'two routes have a second example'
    for name, method, target, body in asked:
        answer = ask(stack.url, method, target, body)
        assert answer.status_code == 200, (name, answer.text)
        assert (name, 200) in contract.contract().seen


VALUES = {
    'message': ['你好', ' x ', '', '   ', '\u3000', None, 5, True, [], {}],
    'user_id': ['u', ' ', '', 'x' * 128, 'x' * 129, 'a\nb', 'a\u007f', '\u0085', None, 5, [], {}],
}
VALUES['session_id'] = VALUES['conversation_id'] = VALUES['user_id']


@pytest.mark.parametrize('path', ['/chat', '/chat/stream', '/session/{session_id}/bind'])
def test_what_the_schema_refuses_is_refused(stack, document, path):
    """And what it lets pass is taken: each value in each field, and each field left out."""
    operation = document['paths'][path]['post']
    schema = operation['requestBody']['content']['application/json']['schema']
    validator = jsonschema.Draft202012Validator(schema, resolver=jsonschema.RefResolver('', document))
    known = document['components']['schemas'][schema['$ref'].rsplit('/', 1)[1]]['properties']
    base = {'message': '你好'} if 'message' in known else {'conversation_id': 'c1'}
    bodies = [{**base, name: value} for name in known for value in VALUES[name]]
    bodies += [{key: value for key, value in base.items() if key != name} for name in base]
    bodies += [base, {**base, 'unknown': 5}, [], 'text', 5, True, [base]]
    for number, body in enumerate(bodies):
        if isinstance(body, dict) and 'session_id' not in body:
            body = {**body, 'session_id': 'schema-%d' % number}
        if path != '/session/{session_id}/bind' and isinstance(body, dict) and \
                body.get('conversation_id') in ('u', ' ', 'x' * 128):
            continue  # good for the schema, and unknown to Coze
        answer = ask(stack.url, 'POST', path.replace('{session_id}', 'schema'), body)
        expected = 200 if validator.is_valid(body) else 400
        assert answer.status_code == expected, (body, answer.text)


@pytest.mark.parametrize('query', ['limit=1', 'limit=50', 'offset=0', 'limit=7&offset=3', 'limit=0', 'limit=51', 'limit=-1',
                                   'limit=x', 'limit=', 'offset=-1', 'offset=1.5', 'unknown=1'])
def test_what_the_query_schema_refuses_is_refused(stack, document, query):
    schemas = {parameter['name']: parameter['schema'] for parameter in document['paths']['/sessions']['get']['parameters']}
    good = True
    for name, value in (pair.split('=') for pair in query.split('&')):
        value = int(value) if re.fullmatch(r'-?\d+', value) else value
        good = good and jsonschema.Draft202012Validator(schemas.get(name, {})).is_valid(value)
    assert ask(stack.url, 'GET', '/sessions?' + query).status_code == (200 if good else 400)


def test_security_is_what_the_service_asks_for(make_stack):
    stack = make_stack(WORKERS='1', API_KEYS='user-key', ADMIN_API_KEYS='admin-key')
    document = ask(stack.url, 'GET', '/openapi.json').json()
    by_scheme = {'bearer': lambda key: {'Authorization': 'Bearer ' + key}, 'apiKey': lambda key: {'X-API-Key': key}}
    schemes = document['components']['securitySchemes']
    assert schemes['bearer']['scheme'] == 'bearer' and schemes['apiKey']['name'] == 'X-API-Key'
    asked = requests_of(document)
    wanted = {operation['operationId']: operation['security'] for _, _, operation in operations(document)}
    for name, method, target, body in asked:
        assert wanted[name] in ([], [{'bearer': []}, {'apiKey': []}])
        assert ask(stack.url, method, target, body).status_code == (401 if wanted[name] else 200)
        for scheme in wanted[name]:
            headers = by_scheme[list(scheme)[0]]('admin-key')
            assert ask(stack.url, method, target, body, **headers).status_code == 200, name


def test_security_is_optional_without_keys(document):
    for _, path, operation in operations(document):
        assert operation['security'] in ([], [{}, {'bearer': []}, {'apiKey': []}]), path


# ---- Prism ----

@pytest.fixture
def prism(stack, tmp_path):
    """Starts Prism between the tests and the service: it answers by itself where a request does not fit, and where an answer
    does not."""
    started = []

    def start(document):
        port = free_port()
        log = open(tmp_path / ('prism-%d.log' % port), 'wb')
        started.append((subprocess.Popen([os.path.join(TOOLS, 'prism'), 'proxy', '--errors', '-h', '127.0.0.1', '-p', str(port),
                                          write(document, tmp_path / ('prism-%d.json' % port)), stack.url],
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT), log))
        url = 'http://127.0.0.1:%d' % port

        def listens():
            assert started[-1][0].poll() is None, 'prism ended'
            try:
                return requests.get(url + '/', timeout=10)
            except requests.ConnectionError:
                return None
        wait_for(listens, seconds=60, what='prism')
        return url

    yield start
    for process, log in started:
        process.terminate()
        process.wait(20)
        log.close()


def test_prism_finds_no_mismatch(stack, document, prism):
    url = prism(document)
    for name, method, target, body in requests_of(document):
        answer = ask(url, method, target, body)
        assert answer.status_code == 200, (name, answer.text)
        assert 'sl-violations' not in answer.headers, answer.headers['sl-violations']
    failures = [('GET', '/session/nobody/info', None, 404), ('GET', '/conversation/nobody/session', None, 404),
                ('POST', '/chat', {'message': 'sim:{"code":4100}'}, 500), ('POST', '/chat', {'message': 'sim:{"code":4014}'}, 400),
                ('POST', '/chat/stream', {'message': 'sim:{"code":4100}'}, 500),
                ('POST', '/chat', {'message': 'x', 'session_id': 'demo_session_1', 'user_id': 'somebody else'}, 403)]
    for method, target, body, status in failures:
        answer = ask(url, method, target, body)
        assert answer.status_code == status and answer.headers['Content-Type'] == 'application/json', answer.text
        assert 'sl-violations' not in answer.headers, answer.headers['sl-violations']


def test_prism_would_find_a_mismatch(document, prism):
    wrong = copy.deepcopy(document)
    wrong['components']['schemas']['ChatAnswer']['properties']['response']['type'] = 'integer'
    wrong['components']['schemas']['SessionCleared']['required'].append('nothing')
    url = prism(wrong)
    for target, body in (('/chat', {'message': '你好'}), ('/session/demo/clear', None)):
        answer = ask(url, 'POST', target, body)
        assert answer.status_code == 500 and 'VIOLATIONS' in answer.json()['type']
    assert ask(url, 'POST', '/chat', {'nothing': 1}).status_code == 422
