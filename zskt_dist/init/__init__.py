"""The first configuration of somebody who has a teacher: what is found about it, what is asked, and the file."""
