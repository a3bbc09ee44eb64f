"""Does a predicted future of what a camera sees help a robot policy pick things up, and from which camera?"""

from world_modality.program import join_run

join_run()
