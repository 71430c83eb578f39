"""
A real Chromium without a window, for the tests of pages. It writes only below a directory of its own, and remembers every
request that it made and every complaint on its console.
"""
import contextlib
import json
import os
import shutil
import tempfile
import time
import urllib.parse

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

PHONE = (390, 844)
DESKTOP = (1280, 800)


class Browser(webdriver.Chrome):
    def __init__(self, language='zh-CN', size=DESKTOP):
        self.home = tempfile.mkdtemp(prefix='cz-chromium-')
        options = Options()
        options.binary_location = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'chromium')
        for argument in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
                         '--disable-extensions', '--disable-background-networking', '--disable-component-update',
                         # A mouse; without a window there is none.
                         '--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4',
                         '--disable-sync', '--hide-scrollbars', '--lang=' + language, '--user-data-dir=' + self.home):
            options.add_argument(argument)
        options.add_experimental_option('prefs', {'intl.accept_languages': language})
        options.set_capability('goog:loggingPrefs', {'performance': 'ALL', 'browser': 'ALL'})
        environment = {'HOME': self.home, 'PATH': '/usr/bin:/bin', 'LANGUAGE': language.replace('-', '_')}
        super().__init__(options=options, service=Service('/usr/bin/chromedriver', env=environment))
        self.requests = []
        self.complaints = []
        self.set_script_timeout(30)
        self.size(size)

    def size(self, size):
        width, height = size
        self.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                             {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 600})
        self.execute_cdp_cmd('Emulation.setTouchEmulationEnabled', {'enabled': width < 600})

    def prefer(self, **features):
        """prefer(color_scheme='dark', reduced_motion='reduce')"""
        self.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [
            {'name': 'prefers-' + name.replace('_', '-'), 'value': value} for name, value in features.items()]})

    def offline(self, away):
        self.execute_cdp_cmd('Network.enable', {})
        self.execute_cdp_cmd('Network.emulateNetworkConditions',
                             {'offline': away, 'latency': 0, 'downloadThroughput': -1, 'uploadThroughput': -1})

    def listen(self):
        """Takes over what was logged since the last time: addresses asked for, and complaints on the console."""
        for entry in self.get_log('performance'):
            message = json.loads(entry['message'])['message']
            if message['method'] == 'Network.requestWillBeSent':
                self.requests.append(message['params']['request']['url'])
        self.complaints += [entry['message'] for entry in self.get_log('browser')]

    def open_page(self, url):
        """As somebody who was never here: nothing is stored, nothing is emulated."""
        for handle in self.window_handles[1:]:
            self.switch_to.window(handle)
            self.close()
        self.switch_to.window(self.window_handles[0])
        # A page that is left may store something. Of another site's blank page nobody knows whether that is over yet; of a page
        # of the same origin, without any script, it is.
        self.get(urllib.parse.urljoin(url, '/health'))
        self.execute_cdp_cmd('Storage.clearDataForOrigin', {'origin': url, 'storageTypes': 'all'})
        self.execute_script('localStorage.clear(); sessionStorage.clear()')
        self.size(DESKTOP)
        self.prefer()
        self.listen()
        self.requests, self.complaints = [], []
        self.get(url)

    def all(self, selector):
        return self.find_elements('css selector', selector)

    def one(self, selector, seconds=10):
        """The first that is shown, once there is one."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(StaleElementReferenceException):  # the page has put another one in its place meanwhile
                for found in self.all(selector):
                    if found.is_displayed():
                        return found
            if time.monotonic() > end:
                self.listen()
                raise AssertionError('%s is not shown; the console says %s' % (selector, self.complaints))
            time.sleep(0.02)

    def js(self, script, *arguments):
        return self.execute_script('return ' + script, *arguments)

    def close_all(self):
        try:
            self.quit()
        finally:
            shutil.rmtree(self.home, ignore_errors=True)
