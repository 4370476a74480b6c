"""Common English words of three to seven letters, and made-up ones that look like them."""

from __future__ import annotations

import random
from functools import cache

_WORDS = """
able about above across act add after again age ago agree air alarm alive all allow almost alone along also
always amount and anger angle animal answer ant any apart apple april area arm army around arrive art ask
asleep attack aunt autumn avoid awake away baby back bad bag bake ball banana band bank bark base basket
bath beach bean bear beat beauty become bed bee before begin behind bell belong below belt bench bend best
better between big bike bill bird birth bit bite bitter black blade blank blind block blood blow blue board
boat body boil bold bone book boot border born borrow both bottle bottom bowl box boy brain branch brave
bread break breath brick bridge bright bring broad broken brother brown brush bucket build bull burn bus
bush busy butter button buy cabin cage cake call calm camera camp can candle cap car card care carpet carry
cart case castle cat catch cattle cause cave center chain chair chalk chance change cheap check cheek cheese
cherry chest chicken chief child church circle city class clay clean clear clever climb clock close cloth
cloud coach coal coast coat coffee coin cold collar color comb come common cook cool copper copy corn corner
cost cotton cough count country couple course court cousin cover cow crash cream create creek crop cross
crowd crown cruel cry cup current curtain curve cut daily damp dance danger dare dark date dawn day dead
deaf deal dear debt decide deep deer degree delay depth desert desk detail device die dig dinner direct dirt
dish divide doctor dog dollar donkey door double doubt down dozen draw dream dress drink drive drop drum dry
duck dull dust duty eager eagle ear early earn earth east easy eat edge effect effort egg eight either elbow
elder elect else empty end enemy energy engine enjoy enough enter entire equal escape even evening event
ever every exact exam except excite expect expert extra eye face fact fail fair fall false fame family
famous far farm fast fat father fault favor fear feast feather feed feel fellow fence fever few field fifth
fight figure fill film final find fine finger finish fire firm first fish fit five fix flag flame flat
flavor flesh float flood floor flour flow flower fly fog fold follow food foot force forest forget forgive
fork form fort forty forward four fox frame free freeze fresh friend frog from front frost fruit full fun
funny fur future gain game garage garden gas gate gather gentle giant gift girl give glad glass globe glory
glove glue goal goat god gold good goose grace grain grand grape grass gray great green greet grief ground
group grow guard guess guest guide guilt gun habit hair half hall hammer hand handle hang happen happy
harbor hard harm harvest hat hate have hay head health hear heart heat heaven heavy height help hen here
hero hidden hide high hill hint hire hold hole holy home honest honey hope horn horse host hot hotel hour
house how huge human humble humor hundred hunger hunt hurry hurt ice idea idle ill image income infant ink
inner insect inside iron island item ivory jacket jail jam jar jaw jelly jewel job join joke journey joy
judge juice jump june jungle junior just keep kettle key kick kid kind king kiss kitchen kite knee knife
knock know label ladder lady lake lamb lamp land lane large last late laugh law lawn lazy lead leaf lean
learn leather leave left leg lemon lend length lesson let letter level lid lie life lift light like limb
limit line lion lip liquid list listen little live liver load loaf local lock log lonely long look loose
lose lost lot loud love low loyal luck lunch lung machine mad magic mail main make male man manner many map
marble march mark market marry mask mass master match matter may meal mean meat medal meet melon melt member
memory mend mercy merry metal middle might mild mile milk mill mind mine minute mirror miss mist mix model
modern moment monday money monkey month mood moon moral more morning most mother motion motor mouse mouth
move much mud muscle music must nail name narrow nation native nature navy near neat neck need needle nest
net never new news next nice night nine noble noise none noon north nose note nothing notice noun novel now
number nurse nut oak oar obey object ocean odd offer office often oil old olive once one onion only open
orange orbit order organ other our out oval oven over owe owl own owner oxen oyster pack paddle page pain
paint pair palace pale palm pan panel paper parade parcel pardon parent park part party pass past path pause
paw pay pea peace peach peak pear pearl pen pencil people pepper perfect period person pet phone photo piano
pick picnic piece pig pillow pilot pin pine pink pint pipe pity place plain plan plane planet plant plate
play please plenty plum plus pocket poem poet point poison pole police polish polite pond pony pool poor
poppy port post pot potato pound pour powder power praise pray press pretty price pride priest prince print
prison prize proof proper proud prove public pull pulse pump punish pupil puppy pure purple purse push
puzzle queen quick quiet quilt quit quite rabbit race radio rag rail rain raise ranch range rank rapid rare
rat rate raw razor reach read ready real reason record red reduce refuse region regret relax remain remind
remove rent repair repeat reply report rescue rest result return reward rhyme ribbon rice rich ride right
ring ripe rise river road roar roast rob robin rock rocket rod role roll roof room root rope rose rotten
rough round route row royal rub rude rug ruin rule run rush rust sack sad saddle safe sail salad salt same
sand saucer save saw say scale scarf scene school science score scream sea search season seat second secret
see seed seem seize self sell send senior sense serve seven sew shade shadow shake shall shallow shame shape
share shark sharp sheep sheet shelf shell shine ship shirt shock shoe shoot shop shore short shout show
shower shut shy sick side sight sign signal silent silk silly silver simple since sing single sink sister
sit six size skill skin skirt sky sleep sleeve slice slide slight slim slip slope slow small smart smell
smile smoke smooth snail snake snow soap social sock soft soil soldier solid solve some son song soon sore
sorrow sort soul sound soup sour south space spade spare speak spear speech speed spell spend spice spider
spin spirit spoil spoon sport spot spread spring square stable staff stage stair stamp stand star start
state station stay steady steal steam steel steep steer stem step stick stiff still sting stock stomach
stone stool stop store storm story stove strange straw stream street strict string strong student study
stupid style subject sudden suffer sugar suit summer sun sunday supper supply sure surface swallow swamp
swan sweep sweet swim swing sword system table tail tailor take tale talk tall tame tank tap tape task taste
tax tea teach team tear teeth tell temple ten tender tennis tent term test thank theft then thick thief thin
thing think third thirst thorn thread three throat throne throw thumb thunder ticket tide tidy tie tiger
tight till timber time tin tiny tip tire title toast today toe tomato tone tongue tool tooth top torch total
touch tough tour toward towel tower town toy trace track trade train trap travel tray tree trial tribe trick
trip trouble truck true trunk trust truth try tube tulip tune tunnel turkey turn turtle twelve twenty twice
twin two type ugly uncle under union unit until upper upset urge use useful usual valley value van vapor
vase veil verb very vessel victim view village violet violin virtue visit voice vote voyage wage wagon waist
wait wake walk wall wander want war warm warn wash wasp waste watch water wave wax way weak wealth weapon
wear weather weave web wedding weed week weigh welcome well west wet whale wheat wheel when where while whip
white whole wide wife wild win wind window wine wing winner winter wipe wire wise wish witch with wolf woman
wonder wood wool word work world worm worry worse worth wound wrap wreck wrist write wrong yard year yellow
yes young youth zebra zero zone zoo
"""
HELD_OUT_EVERY = 8


@cache
def split_words() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(words to train on, words to test on): disjoint, the same on every machine."""
    words = sorted(set(_WORDS.split()))
    random.Random(7).shuffle(words)
    return tuple(words[len(words) // HELD_OUT_EVERY :]), tuple(words[: len(words) // HELD_OUT_EVERY])


@cache
def _held_out() -> frozenset[str]:
    return frozenset(split_words()[1])


def training_word(rng: random.Random) -> str:
    """A word to learn spelling from: half of them real, the rest blends of two; never a held-out one."""
    train, _ = split_words()
    while True:
        word = rng.choice(train)
        if rng.random() < 0.5:
            other = rng.choice(train)
            word = word[: rng.randint(1, 4)] + other[-rng.randint(1, 4) :]
        if 3 <= len(word) <= 7 and word not in _held_out():
            return word
