"""
HTTP requests that are wrong for certain: each is made by a rule of a grammar that leaves no reading in which it would be right, and
knows what may be answered. From one seed come the same requests in the same order, no two alike.
"""
import collections
import json
import random

MARK = 'words-of-a-user'  # in texts, queries and headers: no log may have it
LIMIT = 10 * 1024 * 1024
DEPTH_MAX, VALUES_MAX = 32, 10000  # of a body's JSON

# family: what is wrong; expected: the statuses that may be answered, 0 for a connection that is closed without a word; alone: it
# may end its connection, or leave bytes behind that are read as a request; cut: the client ends its side in the middle of it.
Case = collections.namedtuple('Case', 'family data expected alone cut', defaults=[False, False])

ROUTES = [('GET', '/'), ('GET', '/health'), ('GET', '/openapi.json'), ('GET', '/sessions'), ('GET', '/metrics'),
          ('POST', '/chat'), ('POST', '/chat/stream'), ('GET', '/session/some/info'), ('POST', '/session/some/clear'),
          ('POST', '/session/some/bind'), ('GET', '/conversation/some/session')]
WITH_BODY = ['/chat', '/chat/stream', '/session/some/bind']
FIELDS = {'/chat': ['message', 'session_id', 'user_id', 'conversation_id'], '/session/some/bind': ['conversation_id']}
FIELDS['/chat/stream'] = FIELDS['/chat']

NOT_UTF8 = [b'\xff', b'\x80', b'\xbf\xbf', b'\xc3', b'\xe4\xbd', b'\xf0\x9f\x98', b'\xc0\xaf', b'\xc1\xbf', b'\xe0\x80\xaf', b'\xe0\x9f\xbf',
            b'\xf0\x80\x80\xaf', b'\xf0\x8f\xbf\xbf', b'\xed\xa0\x80', b'\xed\xbf\xbf', b'\xf4\x90\x80\x80', b'\xf8\x88\x80\x80\x80', b'\xfe']
NOT_VALUES = [b'NaN', b'Infinity', b'-Infinity', b'-', b'+1', b'.5', b'1.', b'01', b'-01', b'00', b'1e', b'1E+', b'0x10', b'1 2', b'1-1',
              b'True', b'None', b'undefined', b'tru', b'nulll', b"'a'", b'"a', b'a"', b'`a`', b'1_000', b'--1', b'1..2', b'1e1.5',
              b'"\\q"', b'"\\u12"', b'"\\u12G4"', b'"\\x41"', b'"\\"', b'"\\U0041"', b'/**/', b'#', b'\\', b'\x00', b'!']
BLANKS = [' ', '\t', '\n', '\r', '\u3000', '\u00a0', '\u2003', '\u2028', '\u2029', '\u0085', '\x1c', '\x0b', '\u1680', '\u205f', '\u202f']
CONTROLS = [chr(code) for code in list(range(0x20)) + list(range(0x7f, 0xa0))]
NOT_JSON_TYPES = ['text/plain', 'application/xml', 'text/html', 'multipart/form-data; boundary=x', 'application/jsonx', 'application', 'json',
                  '*/*', 'application/x-www-form-urlencoded', 'image/png', 'application/json; charset=gbk', 'text/json', 'application/js on',
                  'application/json;charset="latin1"', 'application/json; charset=utf-16', 'text/plain; a=application/json', '+json', ';']


def request(method, path, headers=(), body=None):
    lines = ['%s %s HTTP/1.1' % (method, path), 'Host: localhost', *headers]
    if body is not None and not any(line.lower().startswith(('content-length', 'transfer-encoding')) for line in headers):
        lines.append('Content-Length: %d' % len(body))
    return ('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1') + (body or b'')


def post(path, body, kind='application/json'):
    return request('POST', path, ['Content-Type: ' + kind], body)


class Maker:
    """The rules. Each takes what is by chance from self.chance."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.pick = self.chance.choice
        self.upto = self.chance.randrange

    def word(self, letters='abcdefghijklmnopqrstuvwxyz0123456789', most=12):
        return ''.join(self.pick(letters) for _ in range(1 + self.upto(most)))

    def text(self):
        return MARK + ' ' + self.word() + self.pick(['', '你好', '😀', ' "x" ', '\\', '\n', '\u2028'])

    # --- JSON ---

    def value(self, depth=0):
        part = self.upto(8 if depth < 3 else 6)
        if part < 2:
            return self.text()
        if part < 6:
            return self.pick([None, True, False, 0, -1, 1.5, 1e30, self.upto(10 ** 9)])
        if part == 6:
            return [self.value(depth + 1) for _ in range(self.upto(4))]
        return {self.word(): self.value(depth + 1) for _ in range(self.upto(4))}

    def good(self, path, **more):
        """An object that the route takes."""
        fields = {'conversation_id': self.word()} if path.endswith('/bind') else {'message': self.text()}
        fields.update({'x' + self.word(): self.value() for _ in range(self.upto(4))})
        fields.update(more)
        members = list(fields.items())
        self.chance.shuffle(members)
        return dict(members)

    def tokens(self, value):
        """The value as a list of JSON's tokens."""
        def of(value):
            if isinstance(value, dict):
                parts = [[json.dumps(key).encode(), b':', *of(one)] for key, one in value.items()]
                return [b'{', *join(parts), b'}']
            if isinstance(value, list):
                return [b'[', *join([of(one) for one in value]), b']']
            return [json.dumps(value, ensure_ascii=bool(self.upto(2))).encode()]

        def join(parts):
            return [token for at, part in enumerate(parts) for token in ([b','] if at else []) + part]

        return of(value)

    def broken_tokens(self, path):
        """One token of a good object changed, so that it is no JSON."""
        tokens = self.tokens(self.good(path))
        at = self.upto(len(tokens))
        token = tokens[at]
        if token in (b'{', b'[', b'}', b']'):
            tokens[at] = {b'{': self.pick([b'[', b'', b'(', b'{{']), b'[': self.pick([b'{', b'', b'[,']),
                          b'}': self.pick([b']', b'', b',}', b'}}']), b']': self.pick([b'}', b'', b',]', b']]'])}[token]
            if token == b'[' and tokens[at] == b'{' and tokens[at + 1] == b']':
                tokens[at] = b''  # else {] is broken, too, but so it is plain
        elif token == b':':
            tokens[at] = self.pick([b'', b'::', b',', b'=', b';', b'=>', b'"'])
        elif token == b',':
            tokens[at] = self.pick([b' ', b',,', b':', b';', b'"', b'}', b']'])
        elif token.startswith(b'"') and at + 1 < len(tokens) and tokens[at + 1] == b':':
            tokens[at] = self.pick([token[1:-1] or b'x', b"'" + token[1:-1] + b"'", token[:-1], b'1', b'null', b'{}', b'[]', b''])
        else:
            tokens[at] = self.pick(NOT_VALUES)
        return self.pick([b'', b' ', b'\n']).join(tokens)

    def not_json(self):
        path = self.pick(WITH_BODY)
        good = json.dumps(self.good(path)).encode()
        part = self.upto(8)
        if part < 3:
            body = self.broken_tokens(path)
        elif part == 3:
            body = good[:self.upto(len(good))]
        elif part == 4:
            body = good + self.pick([b'}', b']', b'x', b'{}', b'"', b',', b'0', b'\0', b'//', b'null', b':'])
        elif part == 5:
            body = self.pick([b'}', b']', b'x', b'"', b',', b'0', b'\0', b'//', b'null', b':', b'[', b'{']) + good
        elif part == 6:
            text = json.dumps({**self.good(path), 'z': 'a%sb'}).encode()
            body = text.replace(b'%s', bytes([self.upto(0x20)]))
        else:
            body = good.decode().encode(self.pick(['utf-16', 'utf-16-be', 'utf-16-le', 'utf-32']))
        return Case('not JSON', post(path, body), {400})

    def no_object(self):
        value = self.value(2)
        while isinstance(value, dict):
            value = self.value(2)
        return Case('JSON, but no object', post(self.pick(WITH_BODY), json.dumps(value).encode()), {400})

    def too_complex(self):
        path = self.pick(WITH_BODY)
        if self.upto(2):
            depth = DEPTH_MAX + self.upto(200)
            opening, closing = self.pick([('[', ']'), ('{"a":', '}')])
            inner = opening * depth + '1' + closing * depth
        else:
            inner = '[' + ','.join([self.pick(['1', '{}', '[]', '""', 'null'])] * (VALUES_MAX + self.upto(500))) + ']'
        body = json.dumps(self.good(path, y='here')).replace('"here"', inner).encode()
        return Case('JSON that is too much', post(path, body), {400})

    def not_utf8(self):
        path = self.pick(WITH_BODY)
        body = json.dumps(self.good(path, z=self.pick(['', 'a', '你'])), ensure_ascii=False).encode()
        ends = [at for at in range(len(body)) if body[at:at + 1] == b'"' and body[at - 1:at] != b'\\']
        at = self.pick(ends)  # before or behind a quote: in a name, a text, or between
        at += self.upto(2)
        return Case('no UTF-8', post(path, body[:at] + self.pick(NOT_UTF8) + body[at:]), {400})

    # --- fields ---

    def no_string(self):
        path = self.pick(WITH_BODY)
        field = self.pick(FIELDS[path])
        value = self.pick([0, 1, -1.5, True, False, [], {}, [self.text()], {'a': self.text()}, 10 ** 30, 1e300, [None], {field: 'x'}])
        return Case('a field that is no string', post(path, json.dumps(self.good(path, **{field: value})).encode()), {400})

    def missing(self):
        path = self.pick(WITH_BODY)
        needed = FIELDS[path][0]
        fields = self.good(path)
        value = fields.pop(needed)
        part = self.upto(3)
        if part == 0:
            fields[needed] = None
        elif part == 1:
            fields[self.pick([needed.upper(), needed + ' ', ' ' + needed, needed[:-1], needed + 's', needed.title()])] = value
        else:
            fields['y'] = {needed: value}
        return Case('a field that is missing', post(path, json.dumps(fields).encode()), {400})

    def blank(self):
        text = ''.join(self.pick(BLANKS) for _ in range(self.upto(12)))
        body = json.dumps(self.good('/chat', message=text), ensure_ascii=bool(self.upto(2)) or any(c < ' ' for c in text)).encode()
        return Case('a blank message', post(self.pick(WITH_BODY[:2]), body), {400})

    def bad_id_text(self):
        """What is no id, as text."""
        part = self.upto(4)
        if part == 0:
            return self.pick(['x', 'ab', '会', '😀', '%']) * (129 + self.upto(300))
        if part == 1:
            text = self.word()
            at = self.upto(len(text) + 1)
            return text[:at] + self.pick(CONTROLS) + text[at:]
        if part == 2:
            return '会' * 42 + self.word(most=3) + 'xxx'
        return ''

    def bad_id(self):
        path = self.pick(WITH_BODY)
        field = self.pick([name for name in FIELDS[path] if name != 'message'])
        body = json.dumps(self.good(path, **{field: self.bad_id_text()})).encode()
        return Case('a bad id', post(path, body), {400})

    def bad_type(self):
        path = self.pick(WITH_BODY)
        kind = self.pick(NOT_JSON_TYPES)
        if self.upto(2):
            kind = self.pick(['text/', 'image/', 'application/x-', 'x/']) + self.word() + self.pick(['', '; charset=utf-8', ';q=1'])
        return Case('another Content-Type', post(path, json.dumps(self.good(path)).encode(), kind), {415})

    # --- paths, methods, queries ---

    def encode(self, data):
        return ''.join(self.pick(['%%%02x', '%%%02X']) % byte for byte in data)

    def bad_path_id(self):
        what = self.pick(['info', 'clear', 'bind'])
        junk = self.pick([
            lambda: self.encode(self.pick(NOT_UTF8)), lambda: self.encode(self.pick(CONTROLS[1:]).encode()),
            lambda: self.word() * 129, lambda: self.encode(b'x') * 129, lambda: self.encode('会'.encode()) * 43])()
        at = self.word()[:5] if len(junk) < 20 and self.upto(2) else ''
        body = b'' if what == 'info' else b'{"conversation_id":"%s"}' % MARK.encode()
        path = '/session/%s%s/%s' % (at, junk, what)
        return Case('a bad id in the path', request('GET' if body == b'' else 'POST', path, body=body or None), {400})

    def broken_percent(self):
        junk = self.pick(['%', '%z', '%zz', '%f', '%%', '%%41', '%g1', '%1g', '%-1', '% 1', '%u0041', '%00', '%0'])
        path = self.pick(['/', '/chat/', '/session/', '/session/' + self.word()]) + junk + self.pick(['', '/', '/info', '/clear'])
        return Case('a broken escape in the path', request(self.pick(['GET', 'POST']), path), {400}, alone=True)

    def beyond_the_root(self):
        up = self.pick(['..', '%2e%2e', '.%2E', '%2e.'])
        path = '/' + '/'.join([self.word()] * self.upto(2) + [up] * (2 + self.upto(4)) + [self.pick(['etc/passwd', 'chat', '.env', ''])])
        return Case('a path beyond the root', request('GET', path), {400}, alone=True)

    def unknown_path(self):
        method, route = self.pick(ROUTES)
        part = self.upto(5)
        if part == 0:
            path = '/x-' + '/'.join(self.word() for _ in range(1 + self.upto(4)))
        elif part == 1 and len(route) > 1:
            at = self.pick([at for at, letter in enumerate(route) if letter.isalpha() and '/some/' not in route])\
                if '/some/' not in route else len(route) - 1
            path = route[:at] + self.encode(route[at].encode()) + route[at + 1:]
        elif part == 2 and len(route) > 1:
            path = route + self.pick(['/', 's', 'x', '//', ';x', '.json', '%20', '%3Fx', '/..;/x', '~', '%2f', '%ff', '..'])
        elif part == 3:
            path = self.pick(['/', '/./', '/x/../']) + route if len(route) > 1 else '/' + self.encode(b'x')
        else:
            path = '/session/%s/%s' % (self.word(), self.pick(['', 'x', 'Info', 'CLEAR', 'infos', 'bindx', 'info/', 'clear/all', 'info/x']))
        if path.endswith('/..'):
            path += 'x'
        path += self.pick(['', '?', '?' + MARK, '?a=%zz&b=' + MARK])
        body = json.dumps(self.good('/chat')).encode() if method == 'POST' else None
        return Case('an unknown path', request(method, path, ['Content-Type: application/json'], body), {404})

    def wrong_method(self):
        method, path = self.pick(ROUTES)
        path = path.replace('some', self.word())
        known = {'GET', 'HEAD'} if method == 'GET' else {'POST'}
        name = self.pick(['PUT', 'DELETE', 'PATCH', 'TRACE', 'CONNECT', 'OPTIONS', 'PROPFIND', 'GET', 'POST', self.word('ABCXYZ_-', 20)])
        while name in known:
            name = self.word('ABCXYZ_-', 20)
        body = json.dumps(self.good('/chat')).encode() if self.upto(2) else b''
        return Case('a wrong method', request(name, path, ['X-Note: ' + MARK], body), {405}, alone=name in ('TRACE', 'CONNECT'))

    def bad_query(self):
        name = self.pick(['limit', 'offset'])
        bad = ['', '-1', '1.5', '1e1', 'x', '%31%', '+1', '0x5', '1,2', '%00', '%zz', '1%20', '%201', ' ', '99999999999999999999', MARK, '１',
               '1' * 30, '5%00', '-0', 'null', '[]', '%ff', '1/2'] + (['0', '51', '100', '00'] if name == 'limit' else [])
        value = self.pick(bad) if self.upto(3) else self.word('abc%.-+', 6)
        if value == ' ':
            value = '+'
        query = '%s=%s' % (name, value.encode('utf-8').decode('latin-1'))
        if self.upto(4) == 0:
            query = '%s=%d&%s=%d' % (name, 1 + self.upto(50), name, 1 + self.upto(50))  # twice
        if self.upto(2):
            query = self.pick(['a=b&%s', '%s&a=b', '%s&' + MARK, MARK + '&%s', '&&%s&&']) .replace('%s', query)
        return Case('a bad query', request('GET', '/sessions?' + query), {400})

    # --- the request line and the headers ---

    def bad_line(self):
        method, path = self.pick(ROUTES)
        method = self.pick([method.lower(), method.title(), method + self.pick('@\t/():"\\[]?={}\x00\x7f.,0123456789'), '', ' ' + method,
                            self.pick(['G E T', '"GET"', '\x16\x03\x01', '\x80', '{', '<', '\u00e9'])])
        return Case('a method that is none', request(method, path), {400}, alone=True)

    def bad_target(self):
        target = self.pick([
            'health', '*', 'chat?x', '\\chat', '/a b', '/a\tb', '/' + self.pick(CONTROLS[:9] + CONTROLS[11:12] + CONTROLS[14:32] + ['\x7f']),
            'http://', 'http:/x', 'http//x/health', '://x/', 'http:///', 'http://[::1/health', '?', '#', '"/"', '', 'x://y z/', '//a b/'])
        if self.upto(2):
            target = '/' + self.word() + self.pick([' ', '\t', '\x00', '\x01', '\x1b', '\x7f']) + self.word()
        return Case('a target that is none', request(self.pick(['GET', 'POST']), target), {400}, alone=True)

    def bad_version(self):
        version = self.pick(['HTTP/2.0', 'HTTP/3.0', 'HTTP/9.9', 'HTTP/%d.%d' % (2 + self.upto(8), self.upto(10))])
        expected = {505}
        if self.upto(2):
            expected = {400}
            version = self.pick(['HTTP/0.9', 'HTTP/0.1', 'HTTP/1', 'HTTP/1.', 'HTTP/.1', 'HTTP/x', 'HTTP/1.1x', 'HTTP1.1', 'http/1.1', 'HTTQ/1.1',
                                 'HTTP/-1.1', 'HTTP/1.1 x', 'HTTPS/1.1', 'HTTP//1.1', 'HTTP/1,1', 'HTTP/1.1\x00', 'FTP/1.1', 'HTTP/ 1.1', 'HT'])
        line = 'GET /%s %s\r\nHost: localhost\r\n\r\n' % (self.word(), version)
        return Case('another version', line.encode('latin-1'), expected, alone=True)

    def too_long(self):
        part = self.upto(3)
        if part == 0:
            return Case('too long a path', request('GET', '/' + self.word() * 9000), {414}, alone=True)
        if part == 1:
            return Case('too long a header', request('GET', '/health', ['X-%s: %s' % (self.word(), MARK * 700)]), {431}, alone=True)
        headers = ['X-%d: %s' % (number, self.word() + MARK * 100) for number in range(40)]
        return Case('too long headers', request('GET', '/health', headers), {431}, alone=True)

    def bad_host(self):
        host = self.pick(['', 'Host:', 'Host: a b', 'Host: a/b', 'Host: a\x00b', 'Host: \x01', 'Host: a..b', 'Host: .',
                          'Host: x\r\nHost: y', 'Host: x\r\nHost: x', 'Host: %s/..' % self.word(), 'Host: %s\x7f' % self.word()])
        line = 'GET /%s HTTP/1.1\r\n%s\r\n' % (self.word(), host + '\r\n' if host else '')
        return Case('a bad Host', line.encode('latin-1'), {400}, alone=True)

    def bad_header(self):
        """Headers that nobody needs to understand, of a request that is wrong anyway; nginx may refuse them, or leave them out."""
        junk = self.pick([
            'X y: ' + MARK, ': ' + MARK, 'X', 'X:' + '\x01' + MARK, 'X\x00: ' + MARK, 'X: \x00' + MARK, '\x80: x', 'X:: ' + MARK, ' folded ' + MARK,
            '"X": ' + MARK, 'X-Request-ID: ' + MARK * 3 + ' \x7f', 'Cookie: ' + MARK * 50, 'Authorization: ' + MARK, 'X-API-Key:',
            'Accept-Encoding: ' + ',' * 3000, 'Content-Encoding: gzip', 'X-Forwarded-For: ' + ','.join(['1.1.1.1'] * 300), 'Expect: x',
            'Range: bytes=' + '0-,' * 500, 'If-Match: x', 'Upgrade: h2c\r\nConnection: Upgrade', 'Via: ' + MARK, 'Content-Type: \r\nContent-Type: x',
            'Transfer-Encoding:', 'Referer: http://' + MARK, 'User-Agent: ' + 'x' * 700 + '\x1b[2J'])
        at_end = ['Connection: close']
        if self.upto(2):
            return Case('an odd header', request('GET', '/x-' + self.word(), [junk, *at_end]), {400, 404, 501}, alone=True)
        body = b'{"%s":1}' % self.word().encode()
        return Case('an odd header', request('POST', self.pick(WITH_BODY), [junk, *at_end], body), {400, 411, 415, 501}, alone=True)

    # --- where the body ends ---

    def bad_length(self):
        length = self.pick(['-1', '+4', '0x4', '4.0', '4,4', '4 4', 'x', '', '4x', '٤', ' ', '1e1', '--4', '4\x00', '18446744073709551617',
                            '4\r\nContent-Length: 4', '4\r\nContent-Length: 5', '4\r\nTransfer-Encoding: chunked', self.word('abcdef')])
        data = 'POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n' % (self.pick(WITH_BODY), length)
        return Case('a bad Content-Length', data.encode() + b'{}  ', {400, 413}, alone=True)

    def too_large(self):
        size = LIMIT + 1 + self.upto(2 ** self.pick([8, 20, 32, 62]))
        return Case('too large a body', request('POST', self.pick(WITH_BODY), ['Content-Length: %d' % size]), {413}, alone=True)

    def bad_encoding(self):
        name = self.pick(['gzip', 'identity', 'xchunked', 'chunked, identity', 'chunked, chunked', 'gzip, chunked', 'chunked;x', 'chunked\x0b',
                          'chunked\r\nTransfer-Encoding: chunked', 'chunked\r\nTransfer-Encoding: gzip', '"chunked"', self.word()])
        data = 'POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: %s\r\n\r\n0\r\n\r\n' % (self.pick(WITH_BODY), name)
        return Case('another Transfer-Encoding', data.encode('latin-1'), {400, 501}, alone=True)

    def bad_chunks(self):
        mark = MARK.encode()
        size = self.pick([b'', b'-1', b'x', b'0x4', b'g', b' 4', b'+4', b'f' * 17, b'ffffffffffffffff1', b'\x00', b'\r\n', b'4\x00', b'zz'])
        body = self.pick([
            size + b'\r\n{}  \r\n0\r\n\r\n',
            b'4\r\n{}  ' + self.pick([b'x', b'\n\n', b'\r\r', b'5\r\n', mark, b'    ']) + b'\r\n0\r\n\r\n',
            b'4\r\n{}  \r\n' + size + b'\r\n\r\n',
            b'%x\r\n%s\r\n' % (LIMIT + 1 + self.upto(1000), mark)])
        head = request('POST', self.pick(WITH_BODY), ['Transfer-Encoding: chunked', 'Content-Type: application/json', 'X-%s: 1' % self.word()])
        return Case('bad chunks', head + body, {400, 413}, alone=True)

    def not_json_in_chunks(self):
        path = self.pick(WITH_BODY)
        body = self.broken_tokens(path)
        chunks = b''
        while body:
            size = 1 + self.upto(30)
            piece, body = body[:size], body[size:]
            chunks += b'%x%s\r\n%s\r\n' % (len(piece), self.pick([b'', b'', b';a=b']), piece)
        head = request('POST', path, ['Transfer-Encoding: chunked', 'Content-Type: application/json'])
        return Case('no JSON, in chunks', head + chunks + b'0\r\n\r\n', {400})

    def cut(self):
        """A good one that breaks off."""
        path = self.pick(WITH_BODY)
        data = post(path, json.dumps(self.good(path)).encode())
        return Case('half a request', data[:1 + self.upto(len(data) - 1)], {0, 400}, alone=True, cut=True)

    RULES = [(not_json, 16), (no_object, 3), (too_complex, 1), (not_utf8, 8), (no_string, 6), (missing, 4), (blank, 4), (bad_id, 8),
             (bad_type, 4), (bad_path_id, 6), (broken_percent, 3), (beyond_the_root, 2), (unknown_path, 8), (wrong_method, 6),
             (bad_query, 5), (bad_line, 3), (bad_target, 3), (bad_version, 3), (too_long, 1), (bad_host, 2), (bad_header, 4),
             (bad_length, 2), (too_large, 2), (bad_encoding, 2), (bad_chunks, 3), (not_json_in_chunks, 4), (cut, 4)]


def cases(seed, count):
    maker = Maker(seed)
    rules, weights = zip(*Maker.RULES)
    seen = set()
    while len(seen) < count:
        case = maker.chance.choices(rules, weights)[0](maker)
        if case.data not in seen:
            seen.add(case.data)
            yield case
