"""Pictures of several answers: labelled boxes, all phrases of a photo, contact sheets of many photos."""
