"""
The program is built so that a fault in it is hard to use: each flag of the Makefile's HARDEN and HARDEN_LD is looked for
in the binary, and in the record that the compiler left in it for every source.
"""
import os
import platform
import re
import subprocess

import pytest

from service import TOP

CHATD = os.environ.get('CHATD', os.path.join(TOP, 'build', 'coze-chatd'))


def readelf(*options):
    return subprocess.run(['readelf', '--wide', *options, CHATD], env={'PATH': os.environ['PATH'], 'LC_ALL': 'C'},
                          stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture(scope='module')
def segments():
    """[(type, flags, sections)] of the program headers."""
    text = readelf('--segments')
    heads = re.findall(r'^  ([A-Z_]+) +0x\S+ 0x\S+ 0x\S+ 0x\S+ 0x\S+ ([RWE ]{3}) 0x', text, re.M)
    sections = [line.split() for line in re.findall(r'^   \d\d    ?(.*)$', text, re.M)]
    assert len(heads) == len(sections) > 5
    return [(kind, flags.replace(' ', ''), inside) for (kind, flags), inside in zip(heads, sections)]


@pytest.fixture(scope='module')
def imports():
    return set(re.findall(r' UND (\w+)', readelf('--dyn-syms')))


@pytest.fixture(scope='module')
def producers():
    """How the compiler was called for each source, as it recorded that."""
    found = re.findall(r'DW_AT_producer +: (?:\(.*?\): )?(.*)$', readelf('--debug-dump=info', '--dwarf-depth=1'), re.M)
    sources = sum(name.endswith('.c') for _, _, names in os.walk(os.path.join(TOP, 'fcgi')) for name in names)
    assert len(found) == sources
    return found


@pytest.fixture
def release(imports):
    """Sanitizers and coverage bring code of their own: with them glibc's checks are left out."""
    if any(name.startswith(('__asan_', '__ubsan_', '__gcov_')) for name in imports):
        pytest.skip('an instrumented build')


def test_it_is_loaded_at_another_address_each_time(segments):
    assert re.search(r'Type: +DYN \(Position-Independent Executable file\)', readelf('--file-header'))
    assert re.search(r'\(FLAGS_1\) +Flags:.* PIE', readelf('--dynamic'))
    assert not re.search(r'\(TEXTREL\)', readelf('--dynamic')), 'code would be written to when it is loaded'
    assert 'INTERP' in [kind for kind, _, _ in segments]


def test_no_memory_is_both_written_and_executed(segments):
    assert [flags for kind, flags, _ in segments if kind == 'GNU_STACK'] == ['RW']
    loaded = [flags for kind, flags, _ in segments if kind == 'LOAD']
    assert not [flags for flags in loaded if 'W' in flags and 'E' in flags]


def test_data_is_not_executed(segments):
    """Constants and headers have pages of their own: bytes in them that look like code are none."""
    code = [set(inside) for kind, flags, inside in segments if kind == 'LOAD' and 'E' in flags]
    assert len(code) == 1 and '.text' in code[0]
    assert code[0] <= {'.init', '.plt', '.plt.got', '.plt.sec', '.text', '.fini'}


def test_what_calls_libraries_is_read_only_once_it_runs(segments):
    """All names are bound before main(), and then nobody writes to the tables any more."""
    assert re.search(r'\(FLAGS_1\) +Flags: NOW', readelf('--dynamic'))
    relro = [set(inside) for kind, flags, inside in segments if kind == 'GNU_RELRO' and flags == 'R']
    assert len(relro) == 1 and {'.got', '.dynamic', '.init_array', '.fini_array', '.data.rel.ro'} <= relro[0]
    assert not any('.got.plt' in inside for _, _, inside in segments), 'a table outside of it'


def test_an_overwritten_stack_is_noticed(imports, producers):
    assert '__stack_chk_fail' in imports
    assert [line for line in producers if '-fstack-protector-strong' not in line.split()] == []


def test_no_frame_jumps_over_the_guard_page(producers):
    assert [line for line in producers if '-fstack-clash-protection' not in line.split()] == []


@pytest.mark.skipif(platform.machine() != 'x86_64', reason='x86 only')
def test_jumps_lead_to_marked_places_only(producers):
    assert [line for line in producers if '-fcf-protection=full' not in line.split()] == []


@pytest.mark.usefixtures('release')
def test_glibc_checks_the_sizes_that_the_compiler_knows(imports):
    """_FORTIFY_SOURCE: the checked variants are called, and none that could not be checked."""
    assert {'__snprintf_chk', '__vsnprintf_chk', '__memcpy_chk', '__fprintf_chk'} <= imports
    assert not {'gets', 'sprintf', 'stpcpy', 'strcat', 'strcpy', 'vsprintf'} & imports


@pytest.mark.usefixtures('release')
def test_glibc_checks_also_sizes_that_are_known_only_at_run_time(imports):
    """_FORTIFY_SOURCE=3: what is read, or filled, into memory whose size was computed. With 2 these two are not there."""
    assert {'__read_chk', '__memset_chk'} <= imports
