"""Instructions for the tasks of Meta-World: several for each, two held out from training.

`{a|b}` in a sentence is a choice of either.
"""

from __future__ import annotations

SENTENCES: dict[str, tuple[str, ...]] = {
    "reach-v3": (
        "reach{| for} the {goal|target|goal position}",
        "{move|bring} the {hand|gripper} to the {goal|target|goal position}",
        "put the {hand|gripper} at the {goal|target}",
        "go to the {goal|target} with the {hand|gripper}",
    ),
    "push-v3": (
        "{push|slide|shove} the puck {to|onto} the {goal|target|goal position}",
        "{push|slide} the puck over the table to the {goal|target}",
    ),
    "button-press-v3": ("{press|push} the {|red }button{| in| on the wall}",),
    "drawer-open-v3": (
        "open the drawer{| by its handle}",
        "pull the drawer{| open| out}{| by its handle}",
        "slide the drawer {open|out}{| by its handle}",
    ),
    "window-close-v3": (
        "close the window{| by its handle}",
        "{slide|push} the window {shut|closed}{| by its handle}",
    ),
    "pick-place-v3": (
        "pick up the puck and {place it at|carry it to|bring it to} the {goal|target}",
        "pick the puck up and {place it at|carry it to} the {goal|target|goal position}",
        "lift the puck {|and bring it }to the {goal|target|goal position}",
        "grasp the puck and {lift it to|carry it to|place it at} the {goal|target}",
    ),
    "assembly-v3": (
        "{put|place|push} the {ring|nut} {over|onto} the peg{| by its handle}",
        "{pick|lift} the {ring|nut} up and {put|place} it {over|onto} the peg",
    ),
    "basketball-v3": (
        "{throw|drop|put} the {ball|basketball} {into|through} the {hoop|basket}",
        "{pick|lift} the {ball|basketball} up and {drop|put} it {into|through} the {hoop|basket}",
    ),
    "bin-picking-v3": (
        "{move|carry|bring} the {cube|block} {into|to} the other bin",
        "{pick up|grasp|take} the {cube|block} and {put|drop} it into the other bin",
    ),
    "box-close-v3": (
        "{close|cover} the box with {the|its} lid",
        "{put|place} the {lid|cover} {on|onto} the box",
        "{pick up|grasp} the {lid|cover} and close the box with it",
    ),
    "button-press-topdown-v3": (
        "{press|push} the {|red }button {down|from above|from the top}",
        "{press|push} the {|red }button on the table",
    ),
    "button-press-topdown-wall-v3": (
        "reach over the wall and {press|push} the {|red }button {down|from above|from the top}",
        "{press|push} the {|red }button {down|from above|from the top} behind the wall",
    ),
    "button-press-wall-v3": (
        "reach {around|past|over} the wall and {press|push} the {|red }button",
        "{press|push} the {|red }button {|that is }behind the wall",
    ),
    "coffee-button-v3": (
        "{press|push} the button {on|of} the coffee machine",
        "{start|turn on|switch on} the coffee machine{| by its button| with its button}",
    ),
    "coffee-pull-v3": (
        "{pull|move|take} the {mug|cup} away from the coffee machine",
        "{pull|take|move} the {mug|cup} out of the coffee machine",
    ),
    "coffee-push-v3": (
        "{push|slide|move} the {mug|cup} under the coffee machine",
        "{push|slide|move} the {mug|cup} {to|into} the coffee machine",
    ),
    "dial-turn-v3": (
        "{turn|rotate|twist} the {dial|knob}{| by half| all the way}",
        "{turn|rotate} the {dial|knob} {around|to the other side}",
    ),
    "disassemble-v3": (
        "{take|pull|lift} the {ring|nut} off the peg{| by its handle}",
        "{pick|lift} the {ring|nut} up and {take|pull} it off the peg",
    ),
    "door-close-v3": (
        "{close|shut|push shut} the door{| by its handle| with the hand| all the way}",
    ),
    "door-lock-v3": (
        "{lock|bolt} the door{| by its knob| with its knob}",
        "{turn|rotate} the {knob|lock} of the door {to lock it|until it is locked}",
    ),
    "door-open-v3": (
        "{open|pull open} the door{| by its handle| all the way}",
        "pull the {door|handle of the door} {|until it is }open",
    ),
    "door-unlock-v3": (
        "unlock the door{| by its knob| with its knob| with the knob}",
        "{turn|rotate} the {knob|lock} of the door {to unlock it|until it is unlocked}",
    ),
    "hand-insert-v3": (
        "{put|insert|move} the {hand|gripper} into the {hole|gap}",
        "{reach|go} into the {hole|gap} with the {hand|gripper}",
    ),
    "drawer-close-v3": (
        "{close|shut} the drawer{| by its handle| all the way}",
        "{push|slide} the drawer {shut|closed|in}{| by its handle}",
    ),
    "faucet-open-v3": (
        "{open|turn on|rotate open} the {faucet|tap}{| by its handle| with the hand}",
    ),
    "faucet-close-v3": ("{close|turn off|shut} the {faucet|tap}{| by its handle| with the hand}",),
    "hammer-v3": (
        "{hammer|drive|beat} the {nail|screw} into the {wall|box}",
        "{pick up|grasp|take} the hammer and {hit|strike} the {nail|screw} with it",
    ),
    "handle-press-side-v3": (
        "{press|push} the {handle|lever} down from {the|its} side{| all the way}",
        "{press|push} the {handle|lever} at the side down{| all the way}",
    ),
    "handle-press-v3": (
        "{press|push|move} the {handle|lever} down{| with the hand| all the way| from the front}",
    ),
    "handle-pull-side-v3": (
        "{pull|lift} the {handle|lever} up from {the|its} side{| all the way}",
        "{pull|lift} the {handle|lever} at the side up{| all the way}",
    ),
    "handle-pull-v3": (
        "{pull|lift|move} the {handle|lever} up{| with the hand| all the way| from the front}",
    ),
    "lever-pull-v3": (
        "{pull|lift|turn} the {lever|bar} up by {half a turn|a quarter}",
        "{pull|lift|turn} the {lever|bar} on the post {up|until it points up}",
    ),
    "pick-place-wall-v3": (
        "{pick up|grasp|lift} the puck and {carry|bring} it over the wall{| to the goal}",
    ),
    "pick-out-of-hole-v3": (
        "{pick|take|lift|pull} the puck out of the hole{| in the table| and bring it to the goal}",
    ),
    "plate-slide-v3": (
        "{slide|push|move} the {plate|disc} {into|to} the {cabinet|goal of the cabinet}",
    ),
    "plate-slide-side-v3": (
        "{slide|push|move} the {plate|disc} {sideways|to the side} into the {cabinet|goal}",
    ),
    "plate-slide-back-v3": (
        "{slide|pull|move} the {plate|disc} {back|towards the robot} out of the {cabinet|goal}",
    ),
    "plate-slide-back-side-v3": (
        "{slide|pull|move} the {plate|disc} {sideways|to the side} out of the {cabinet|goal}",
    ),
    "peg-insert-side-v3": (
        "{insert|push|put} the peg {into|in} the hole {from|at} the side",
        "{pick up|grasp} the peg and {insert|push|put} it into the hole",
    ),
    "peg-unplug-side-v3": (
        "{unplug|pull out} the {peg|plug} {sideways|from the side|to the side}",
        "{pull|take} the {peg|plug} out of the {socket|hole}",
    ),
    "soccer-v3": ("{kick|push|shoot|roll} the {ball|football} into the {net|soccer goal}",),
    "stick-push-v3": (
        "{push|move} the {thermos|bottle} {with|by} the stick{| to the goal| to the target}",
        "{pick up|grasp} the stick and {push|move} the {thermos|bottle} with it",
    ),
    "stick-pull-v3": (
        "{pull|drag} the {thermos|bottle} {with|by} the stick{| to the goal| to the target}",
        "{pick up|grasp} the stick and {pull|drag} the {thermos|bottle} with it",
    ),
    "push-wall-v3": (
        "{push|slide|shove} the puck {around|past} the wall{| to the goal| to the target}",
    ),
    "push-back-v3": (
        "{push|pull|slide} the {puck|block} {back|towards the robot}{| to the goal| to the target}",
    ),
    "reach-wall-v3": (
        "reach {around|over|past} the wall to the {goal|target|goal position}",
        "{move|bring} the {hand|gripper} to the {goal|target} behind the wall",
    ),
    "shelf-place-v3": (
        "{put|place|set} the {puck|block} {on|onto} the shelf",
        "{pick up|grasp|lift} the {puck|block} and {put|place} it on the shelf",
    ),
    "sweep-into-v3": (
        "{sweep|push|slide|move} the {puck|block} into the {hole|hole in the table}",
    ),
    "sweep-v3": (
        "{sweep|push|slide|move} the {puck|block} off the table{| to the side| to the right}",
    ),
    "window-open-v3": (
        "{open|pull open|slide open|push open} the window{| by its handle| all the way}",
    ),
}
"""Task -> its instructions."""

HELD_OUT: dict[str, tuple[str, str]] = {
    "reach-v3": ("bring the hand to the target", "move the gripper to the goal"),
    "push-v3": ("slide the puck onto the goal position", "push the puck to the target"),
    "button-press-v3": ("push the red button in", "press the button on the wall"),
    "drawer-open-v3": ("slide the drawer out", "pull the drawer out"),
    "window-close-v3": ("push the window shut by its handle", "shut the window"),
    "pick-place-v3": (
        "pick up the puck and carry it to the goal",
        "pick up the puck and bring it to the target",
    ),
    "assembly-v3": ("put the ring onto the peg by its handle", "place the nut over the peg"),
    "basketball-v3": ("drop the basketball into the basket", "put the ball through the hoop"),
    "bin-picking-v3": (
        "take the block and put it into the other bin",
        "carry the cube to the other bin",
    ),
    "box-close-v3": ("place the cover on the box", "put the lid onto the box"),
    "button-press-topdown-v3": ("push the red button from above", "press the button down"),
    "button-press-topdown-wall-v3": (
        "push the red button down behind the wall",
        "reach over the wall and press the button from above",
    ),
    "button-press-wall-v3": (
        "reach past the wall and push the red button",
        "press the button behind the wall",
    ),
    "coffee-button-v3": (
        "switch on the coffee machine by its button",
        "push the button of the coffee machine",
    ),
    "coffee-pull-v3": (
        "move the cup out of the coffee machine",
        "pull the mug away from the coffee machine",
    ),
    "coffee-push-v3": (
        "slide the cup into the coffee machine",
        "push the mug under the coffee machine",
    ),
    "dial-turn-v3": ("twist the knob all the way", "turn the dial around"),
    "disassemble-v3": ("pull the ring off the peg by its handle", "take the nut off the peg"),
    "door-close-v3": ("push shut the door by its handle", "shut the door"),
    "door-lock-v3": ("turn the lock of the door until it is locked", "lock the door by its knob"),
    "door-open-v3": ("pull open the door by its handle", "open the door all the way"),
    "door-unlock-v3": ("rotate the lock of the door to unlock it", "unlock the door with its knob"),
    "hand-insert-v3": ("insert the gripper into the gap", "reach into the hole with the hand"),
    "drawer-close-v3": ("slide the drawer in by its handle", "push the drawer shut"),
    "faucet-open-v3": ("rotate open the tap by its handle", "turn on the faucet"),
    "faucet-close-v3": ("shut the tap by its handle", "turn off the faucet"),
    "hammer-v3": ("take the hammer and strike the nail with it", "hammer the nail into the box"),
    "handle-press-side-v3": (
        "push the lever down from its side",
        "press the handle at the side down",
    ),
    "handle-press-v3": ("push the lever down with the hand", "press the handle down all the way"),
    "handle-pull-side-v3": ("lift the lever up from its side", "pull the handle at the side up"),
    "handle-pull-v3": ("lift the lever up with the hand", "pull the handle up all the way"),
    "lever-pull-v3": (
        "lift the bar on the post until it points up",
        "pull the lever on the post up",
    ),
    "pick-place-wall-v3": (
        "grasp the puck and bring it over the wall to the goal",
        "pick up the puck and carry it over the wall",
    ),
    "pick-out-of-hole-v3": (
        "pull the puck out of the hole in the table",
        "take the puck out of the hole",
    ),
    "plate-slide-v3": ("move the disc into the cabinet", "slide the plate to the cabinet"),
    "plate-slide-side-v3": (
        "move the disc sideways into the cabinet",
        "slide the plate to the side into the cabinet",
    ),
    "plate-slide-back-v3": (
        "move the disc back out of the cabinet",
        "slide the plate towards the robot out of the cabinet",
    ),
    "plate-slide-back-side-v3": (
        "move the disc sideways out of the cabinet",
        "slide the plate to the side out of the cabinet",
    ),
    "peg-insert-side-v3": (
        "grasp the peg and push it into the hole",
        "insert the peg into the hole from the side",
    ),
    "peg-unplug-side-v3": ("pull out the plug to the side", "take the peg out of the socket"),
    "soccer-v3": ("roll the football into the net", "kick the ball into the soccer goal"),
    "stick-push-v3": (
        "grasp the stick and move the bottle with it",
        "push the thermos with the stick",
    ),
    "stick-pull-v3": (
        "grasp the stick and drag the bottle with it",
        "pull the thermos with the stick",
    ),
    "push-wall-v3": ("shove the puck past the wall to the target", "push the puck around the wall"),
    "push-back-v3": ("slide the block towards the robot to the target", "push the puck back"),
    "reach-wall-v3": (
        "bring the gripper to the goal behind the wall",
        "reach over the wall to the target",
    ),
    "shelf-place-v3": ("lift the block and put it on the shelf", "place the puck onto the shelf"),
    "sweep-into-v3": ("move the block into the hole", "sweep the puck into the hole in the table"),
    "sweep-v3": ("slide the block off the table to the side", "sweep the puck off the table"),
    "window-open-v3": ("slide open the window by its handle", "open the window all the way"),
}
"""Task -> the ways that only `development` and only `test` have, in words that training has."""
