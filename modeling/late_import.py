"""Actions on imports: a library gets our classes when somebody has imported it, and is not imported for that."""

import sys
from collections.abc import Callable, Collection
from importlib import import_module
from importlib.abc import MetaPathFinder


def after_import(name: str, action: Callable[[], None]) -> None:
    """Calls `action` once the module `name` is imported: now, if it is already."""
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _AfterImport(name, action))


def import_first(name: str, package: str, but: Collection[str]) -> None:
    """Imports the module `name` before any module of a package, `but` some that do without."""
    sys.meta_path.insert(0, _ImportFirst(name, package, but))


class _AfterImport(MetaPathFinder):
    """Finds one module as the others do, and acts when it was executed."""

    def __init__(self, name: str, action: Callable[[], None]):
        self.name, self.action = name, action

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    self.action()

            spec.loader.exec_module = exec_module
        return spec


class _ImportFirst(MetaPathFinder):
    """Finds nothing, but imports a module before others."""

    def __init__(self, name: str, package: str, but: Collection[str]):
        self.name, self.package, self.but = name, package, but

    def find_spec(self, fullname, path=None, target=None):
        package, _, module = fullname.rpartition(".")
        if package == self.package and module not in self.but:
            import_module(self.name)
