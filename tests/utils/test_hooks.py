"""RemovableHandle and the hook helpers of gpunn.utils.hooks."""

import copy
import pickle
from collections import OrderedDict

import pytest

import gpunn
from gpunn.utils.hooks import RemovableHandle, unserializable_hook, warn_if_has_hooks


class Owner:
    """A holder of hooks that can be pickled with its handle."""

    def __init__(self):
        self.hooks = OrderedDict()
        self.flags = OrderedDict()
        self.handle = RemovableHandle(self.hooks, extra_dict=self.flags)
        self.hooks[self.handle.id] = "hook"
        self.flags[self.handle.id] = True


def test_remove_takes_the_id_out_of_all_dictionaries_once():
    owner = Owner()
    owner.handle.remove()
    owner.handle.remove()
    assert not owner.hooks and not owner.flags


def test_a_list_of_extra_dictionaries():
    hooks, one, two = OrderedDict(), OrderedDict(), OrderedDict()
    handle = RemovableHandle(hooks, extra_dict=[one, two])
    hooks[handle.id] = one[handle.id] = two[handle.id] = 1
    with handle as entered:
        assert entered is handle
    assert not hooks and not one and not two


def test_ids_are_never_given_twice():
    hooks = OrderedDict()
    assert len({RemovableHandle(hooks).id for _ in range(5)}) == 5


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copied_handle_removes_the_copied_hook(duplicate):
    owner = Owner()
    copied = duplicate(owner)
    copied.handle.remove()
    assert owner.hooks and not copied.hooks and not copied.flags
    assert RemovableHandle(owner.hooks).id > copied.handle.id


def test_a_handle_outlives_its_dictionary():
    owner = Owner()
    handle = owner.handle
    del owner
    handle.remove()
    pickle.loads(pickle.dumps(handle)).remove()


def test_hooks_that_are_not_saved_warn():
    x = gpunn.ones(2, requires_grad=True)
    warn_if_has_hooks(x)
    x.register_hook(unserializable_hook(lambda g: g))
    warn_if_has_hooks(x)
    x.register_hook(lambda g: g)
    with pytest.warns(UserWarning, match="will not be serialized"):
        warn_if_has_hooks(x)
