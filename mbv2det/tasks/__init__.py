"""One file per task, and the list of all tasks."""

from mbv2det.tasks.classification import ClassificationTask as ClassificationTask
from mbv2det.tasks.detection import DetectionTask as DetectionTask
from mbv2det.tasks.segmentation import SegmentationTask as SegmentationTask
from mbv2det.tasks.task import Task as Task
from mbv2det.tasks.task import TrainableTask as TrainableTask

# By name, in the order in which heads are built and results are listed.
TASKS: dict[str, type[Task]] = {
    task.name: task for task in (DetectionTask, SegmentationTask, ClassificationTask)
}


def trainable_task(name: str) -> type[TrainableTask]:
    """Returns the task of a name, which must be that of a trainable task."""
    task = TASKS[name]
    assert issubclass(task, TrainableTask)
    return task
