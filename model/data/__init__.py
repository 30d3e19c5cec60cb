"""From files to tensors: photographs, luma, blur and crops."""
