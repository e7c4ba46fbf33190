import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbv2det.errors import DataError
from mbv2det.labels import VOC_NAMES, LabelMap, voc_name

# Ids with gaps, from zero, negative and beyond 64 bits.
ID_LISTS = st.lists(st.integers(-1, 2**70), min_size=1, max_size=20, unique=True)


@given(ID_LISTS)
def test_ids_and_names_map_to_their_label(ids):
    label_map = LabelMap(tuple(f"class {id_}" for id_ in ids), tuple(ids))
    assert len(label_map) == len(ids)
    assert [label_map.label_of_id[id_] for id_ in label_map.ids] == list(range(len(ids)))
    assert [label_map.label_of_name[name] for name in label_map.names] == list(range(len(ids)))


def test_id_in_a_gap_has_no_label():
    assert 2 not in LabelMap(("a", "b"), (1, 3)).label_of_id


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [
        (("cat", "cat"), (1, 2), "the name 'cat' twice"),
        (("cat", "dog"), (5, 5), "the id 5 twice"),
        (("cat", "dog"), (1,), "one id for each name, got 2 names and 1 ids"),
    ],
)
def test_classes_that_contradict_are_refused(names, ids, message):
    with pytest.raises(DataError, match=message):
        LabelMap(names, ids)


def test_a_split_without_objects_may_have_no_classes_but_none_can_be_chosen():
    assert len(LabelMap((), ())) == 0
    with pytest.raises(DataError, match="at least one class"):
        LabelMap(("cat",), (1,)).choose([])


def test_choose_keeps_the_requested_order_and_the_ids():
    chosen = LabelMap(("cat", "dog", "cow"), (17, 18, 21)).choose(["cow", "cat"])
    assert chosen == LabelMap(("cow", "cat"), (21, 17))


def test_choose_suggests_the_nearest_name():
    with pytest.raises(DataError, match=r"got 'hotdog'.*did you mean 'hot dog'\?"):
        LabelMap(("person", "hot dog"), (1, 2)).choose(["hotdog"])


def test_choose_suggests_nothing_without_a_near_name():
    with pytest.raises(DataError) as caught:
        LabelMap(("person", "bicycle"), (1, 2)).choose(["xyz"])
    assert "did you mean" not in str(caught.value)


def test_choose_refuses_a_name_given_twice():
    with pytest.raises(DataError, match="'cat' twice"):
        LabelMap(("cat", "dog"), (1, 2)).choose(["cat", "cat"])


def test_labels_of_masks_are_their_values():
    assert LabelMap.of_masks(["background", "cat"]) == LabelMap(("background", "cat"), (0, 1))


# COCO's names for VOC's twenty classes, in VOC's order.
COCO_NAMES = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch",
    "train", "tv",
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "others"), [(VOC_NAMES, COCO_NAMES), (COCO_NAMES, VOC_NAMES), (VOC_NAMES, VOC_NAMES)]
)
def test_find_takes_the_names_of_coco_and_of_voc(names, others):
    label_map = LabelMap.of_masks(names)
    assert [label_map.find(name) for name in others] == list(range(20))


def test_voc_names_of_cocos_classes():
    assert tuple(voc_name(name) for name in COCO_NAMES) == VOC_NAMES
    assert voc_name("zebra") == "zebra"


def test_unknown_name_has_no_label():
    assert LabelMap(("cat", "tv"), (1, 2)).find("zebra") is None


def test_find_prefers_the_same_name_to_another_spelling():
    label_map = LabelMap(("tv", "tvmonitor"), (1, 2))
    assert [label_map.find("tv"), label_map.find("tvmonitor")] == [0, 1]
