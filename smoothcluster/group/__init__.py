"""The group: its members and numbers, leader election, shard assignment, and the handover of shards.

Pure decisions stand apart from guarded commits. A decision turns a snapshot of the group (`view.View`) into moves; each
move is a single commit that compares everything the decision relied on. A late or wrong decision loses a race::

    GroupStore.read_view --> View --> election.seat_to_claim --> handover.claim    --> commit
                                  --> assignment.plan        --> handover.transfer --> commit

A shard moves between three states::

    owned --leave, release--> unassigned --claim (epoch + 1)--> owned
    owned --the owner died, claim by a successor (epoch + 1)--> owned
    owned --transfer to another member (epoch + 1)--> owned

Invariants: at most ``runner`` members hold a seat; a shard has one owner whose writes the store accepts; a claim
compares the claimant's own record, so a member whose incarnation ended claims nothing.

On failure: a refused commit means that another member was faster, and the member reads the group again. A commit with
an unknown outcome needs no memory: a member holds whatever the store says that it holds.

Begin reading with `view` and `store`, then `election`, `assignment` and `handover`.
"""
